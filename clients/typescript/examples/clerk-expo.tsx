// Clerk in Expo: as in React, and for the moment after a native sign-in, when there is a session but no token
// yet, with the session's id. That needs CLERK_SECRET_KEY at the service, and an id is good once.
import { useAuth } from "@clerk/expo";
import { createAppSession, type AppSession } from "@exchequer/client";
import { useEffect, useMemo, useRef } from "react";

/** The app session of whoever is signed in; nothing of it is stored on the device. */
export function useAppSession(): AppSession {
  const { getToken, sessionId, orgId } = useAuth();
  const latest = useRef(getToken);
  latest.current = getToken;
  const session = useMemo(
    () =>
      createAppSession({
        url: "https://auth.example.com",
        app: "mobile",
        origins: ["https://api.example.com"],
        getSubjectToken: async ({ forceRefresh }) =>
          (await latest.current({ skipCache: forceRefresh })) ?? (sessionId ? { sessionId } : null),
      }),
    [sessionId, orgId],
  );
  useEffect(() => () => session.clear(), [session]);
  return session;
}
