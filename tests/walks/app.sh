#!/usr/bin/env bash
# "I write the app": from the clone to a token in a running app, as the README and docs/quickstart.md say.
WALK=app
. "$(dirname "$0")/walk.sh"
clone

# The README's first command.
start run make run
appears run "Ctrl-C ends it"
shown=$(cat "$SCRATCH/run.log")
sees "$shown" "200 OK" '"sub": "user_2standin"' "signature good"
say "make run has shown an exchange"

# What it prints to be tried by hand, pasted into a shell.
lines=$(printf '%s\n' "$shown" | sed -n '/^Do it yourself/,/^A native app/p' | grep '^  ')
answer=$(bash -c "$lines")
sees "$answer" '"token":"eyJ' '"expires_in":600'
lines=$(printf '%s\n' "$shown" | grep -A2 'OLD=')
refusal=$(bash -c "$lines") && wrong "explain takes an expired token"
sees "$refusal" '"code":"subject_token_expired"' '"action":"refresh_subject_token"' "FAIL  expiry"
sees "$(target/debug/exchequer errors subject_token_expired)" "cause" "mend"
stop run
say "an exchange and a refusal by curl"

# The quickstart.
export PORT=0
start quickstart make quickstart
appears quickstart "The app is at"
app=$(sed -n 's/^The app is at //p' "$SCRATCH/quickstart.log")
sees "$(curl -s "$app")" "<h1>Tasks</h1>"
status 401 "$app/api/tasks"
say "make quickstart serves the page"

# What its page does, with the client library: a token, the backend's answer, and nothing after the sign-out.
cat >"$SCRATCH/exchequer/examples/quickstart/walk.mjs" <<'JS'
import { createAppSession } from '../../clients/typescript/dist/index.js';
const app = process.argv[2];
const config = await (await fetch(`${app}/config.json`)).json();
let signedIn = true;
const getSubjectToken = async () =>
  signedIn ? (await fetch(`${app}/stand-in/session-token`, { method: 'POST' })).text() : null;
const session = createAppSession({ ...config, getSubjectToken });
const { user } = await session.ensure();
const { tasks } = await (await session.fetch(`${app}/api/tasks`)).json();
console.log(`${user.id} has ${tasks.length} tasks`);
signedIn = false;
session.clear();
console.log(await session.getToken().catch((error) => error.code));
JS
sees "$(node examples/quickstart/walk.mjs "$app")" "user_2standin has 2 tasks" "signed_out"
say "the client library calls the backend"
