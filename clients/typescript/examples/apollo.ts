// Apollo Client: the link gets `session.fetch`, so requests carry the token, and a 401 renews it.
import { ApolloClient, HttpLink, InMemoryCache } from "@apollo/client";
import { ErrorLink } from "@apollo/client/link/error";
import { ExchangeError, type AppSession } from "@exchequer/client";

/** `session` must allow the API's origin: `origins: ["https://api.example.com"]`. */
export function createApolloClient(session: AppSession, signIn: () => void): ApolloClient {
  const errors = new ErrorLink(({ error }) => {
    if (error instanceof ExchangeError && error.action === "sign_in") signIn();
  });
  const http = new HttpLink({ uri: "https://api.example.com/graphql", fetch: session.fetch });
  const client = new ApolloClient({ link: errors.concat(http), cache: new InMemoryCache() });
  // What one user has seen, the next must not.
  session.on("clear", () => void client.clearStore());
  return client;
}

/** For subscriptions: `createClient({ url, connectionParams: connectionParams(session) })` of graphql-ws. */
export const connectionParams = (session: AppSession) => async () => ({
  authorization: `Bearer ${await session.getToken()}`,
});
