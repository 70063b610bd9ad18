// What is asked for by the two arguments of a `fetch`, without consuming them.

type Arguments = Parameters<typeof fetch>;

/** The arguments as a Request, where they bring one. */
export function given(input: Arguments[0]): Request | undefined {
  return typeof input === "object" && "clone" in input ? input : undefined;
}

/** The address, as `fetch` itself will read it: absolute and normalised, where the platform does that. */
export function address(input: Arguments[0]): string {
  return (given(input) ?? new Request(input)).url;
}

/** The headers, to be added to. */
export function headersOf(input: Arguments[0], init: Arguments[1]): Headers {
  return new Headers(init?.headers ?? given(input)?.headers);
}

/** The first argument, to be sent: a Request can be sent once, so a copy of it is. */
export function copy(input: Arguments[0]): Arguments[0] {
  return given(input)?.clone() ?? input;
}

/** Whether the body can be sent a second time; a stream cannot, and nor can what Node takes for one. */
export function repeatable(init: Arguments[1]): boolean {
  const body = init?.body;
  return !(body && typeof body === "object" && ("getReader" in body || Symbol.asyncIterator in body));
}
