// TanStack Query: retries what may succeed later and nothing else, and forgets all when the user changes.
import { ExchangeError, type AppSession } from "@exchequer/client";
import { QueryClient, useQuery } from "@tanstack/react-query";

export function createQueryClient(session: AppSession): QueryClient {
  const client = new QueryClient({
    defaultOptions: {
      queries: {
        // The session has tried four times already where that could help.
        retry: (failures, error) => !(error instanceof ExchangeError) && failures < 2,
      },
    },
  });
  session.on("clear", () => client.clear());
  return client;
}

export const useMe = (session: AppSession) =>
  useQuery({
    queryKey: ["me"],
    queryFn: async ({ signal }): Promise<{ name: string }> => {
      const answer = await session.fetch("https://api.example.com/me", { signal });
      if (!answer.ok) throw new Error(`The API answered ${answer.status}`);
      return answer.json();
    },
  });
