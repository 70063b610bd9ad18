// Clerk in React: an app session for each Clerk session and organization, and none of it survives a sign-out.
import { useAuth } from "@clerk/react";
import { createAppSession, type AppSession } from "@exchequer/client";
import { createContext, useContext, useEffect, useMemo, useRef, type ReactNode } from "react";

const Session = createContext<AppSession | undefined>(undefined);

/** Inside <ClerkProvider>, around whatever calls the API. */
export function AppSessionProvider({ children }: { children: ReactNode }) {
  const { getToken, sessionId, orgId } = useAuth();
  const latest = useRef(getToken);
  latest.current = getToken;
  const session = useMemo(
    () =>
      createAppSession({
        url: "https://auth.example.com",
        origins: ["https://api.example.com"],
        getSubjectToken: ({ forceRefresh }) => latest.current({ skipCache: forceRefresh }),
      }),
    // Another user, or another organization of the same one, is another session.
    [sessionId, orgId],
  );
  useEffect(() => () => session.clear(), [session]);
  return <Session.Provider value={session}>{children}</Session.Provider>;
}

/** `const api = useAppSession().fetch;` */
export function useAppSession(): AppSession {
  const session = useContext(Session);
  if (!session) throw new Error("useAppSession needs an AppSessionProvider around it");
  return session;
}
