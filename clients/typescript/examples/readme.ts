// The snippets of ../README.md, in the order of the page, and what they take for granted.
import type { useClerk } from "@clerk/react";
import type { AppSession, AppSessionOptions } from "@exchequer/client";

import { createAppSession } from "@exchequer/client";

import { ExchangeError } from "@exchequer/client";

import { createDpopFetch } from "@exchequer/client/dpop";

declare const clerk: ReturnType<typeof useClerk>;
declare const getSubjectToken: AppSessionOptions["getSubjectToken"];
declare const sessionId: string | null;
declare function signIn(): void;
declare function report(...what: unknown[]): void;
declare function showRemainingTasks(): void;

export async function use() {
  const session = createAppSession({
    url: "https://auth.example.com", // where Exchequer is
    origins: ["https://api.example.com"], // who gets the token
    getSubjectToken: ({ forceRefresh }) => clerk.session?.getToken({ skipCache: forceRefresh }),
  });

  const answer = await session.fetch("https://api.example.com/me"); // with a token; after a 401 with a new one
  const token = await session.getToken(); // for whoever sends it otherwise
  const { user } = await session.ensure(); // who it is: { id, org_id, roles, is_new }

  session.on("error", ({ action, code, requestId }) => (action === "sign_in" ? signIn() : report(code, requestId)));
  clerk.addListener(({ session: present }) => present || session.clear()); // signed out

  return { answer, token, user };
}

export async function errors(session: AppSession) {
  try {
    await session.getToken();
  } catch (error) {
    if (error instanceof ExchangeError && error.code === "session_pending") showRemainingTasks();
    else throw error;
  }
}

export const bySessionId =
  createAppSession({
    url: "https://auth.example.com",
    getSubjectToken: async () => (await clerk.session?.getToken()) ?? (sessionId ? { sessionId } : null),
  });

export function bound() {
  const session = createAppSession({
    url: "https://auth.example.com",
    origins: ["https://api.example.com"],
    getSubjectToken,
    fetch: createDpopFetch(),
  });
  return session;
}
