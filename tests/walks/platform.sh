#!/usr/bin/env bash
# "I run it": check, serve two replicas with a Redis, doctor, rotate, and the cause of an error, as docs/running.md
# says.
WALK=platform
. "$(dirname "$0")/walk.sh"
command -v redis-server >/dev/null || wrong "needs redis-server"
clone
cargo build --locked --quiet
PATH=$PWD/target/debug:$PATH
say "built"

# A provider: the stand-in of `exchequer dev`.
start provider exchequer dev
appears provider "Do it yourself"
provider=$(sed -n 's/^The identity provider.*\(http:.*\)$/\1/p' "$SCRATCH/provider.log")

# A configuration with two mistakes, and all of them said at once.
mkdir "$SCRATCH/service" && cd "$SCRATCH/service"
mistakes=$(CLERK_JWT_ISSUER="$provider" EXCHEQUER_TOKEN_TTL=600 EXCHEQUER_LISEN=:80 exchequer check 2>&1) &&
  wrong "check takes a wrong configuration"
sees "$mistakes" 'did you mean "EXCHEQUER_LISTEN"' "EXCHEQUER_TOKEN_TTL"
say "check says all that is wrong"

# A Redis, a secret, and two replicas behind what would be one address.
redis=$(free_port)
start redis redis-server --port "$redis" --bind 127.0.0.1 --save '' --maxmemory-policy noeviction
until_ok redis-cli -p "$redis" ping
openssl rand -base64 32 >keys.secret
chmod 600 keys.secret
one=$(free_port) admin_one=$(free_port) two=$(free_port) admin_two=$(free_port)
export CLERK_JWT_ISSUER=$provider CLERK_AUTHORIZED_PARTIES=http://localhost:3000
export EXCHEQUER_ISSUER=http://127.0.0.1:$one EXCHEQUER_AUDIENCE=https://api.example.com
export EXCHEQUER_STORE=redis://127.0.0.1:$redis EXCHEQUER_KEYS_SECRET_FILE=$PWD/keys.secret
export EXCHEQUER_SHUTDOWN_DELAY=0s EXCHEQUER_LOG_FORMAT=json
sees "$(exchequer check)" "issuer of app tokens http://127.0.0.1:$one" "app default"
serve() { # NAME PORT ADMIN-PORT
  start "$1" env EXCHEQUER_LISTEN="127.0.0.1:$2" EXCHEQUER_ADMIN_LISTEN="127.0.0.1:$3" \
    EXCHEQUER_KEYS_DIR="$PWD/keys-$1" exchequer serve
  appears "$1" '"message":"listening"'
  until_ok curl -sf "http://127.0.0.1:$3/readyz"
}
serve one "$one" "$admin_one"
serve two "$two" "$admin_two"
say "two replicas serve with one Redis"

export EXCHEQUER_LISTEN=127.0.0.1:$one EXCHEQUER_ADMIN_LISTEN=127.0.0.1:$admin_one EXCHEQUER_KEYS_DIR=$PWD/keys-one
exchequer doctor >"$SCRATCH/doctor.log" || wrong "doctor finds something: $(cat "$SCRATCH/doctor.log")"
sees "$(cat "$SCRATCH/doctor.log")" "redis" "round trip"
say "doctor finds nothing wrong"

# A rotation, and no token fails at either replica.
kids() { curl -s "http://127.0.0.1:$1/.well-known/jwks.json" | tr ',' '\n' | grep '"kid"' | sort; }
exchange() { curl -s "http://127.0.0.1:$1/auth/exchange" -H "Authorization: Bearer $(curl -s "$provider/session-token")" -X POST; }
[ "$(kids "$one")" = "$(kids "$two")" ] || wrong "the replicas publish different keys"
before=$(member "$(exchange "$one")" token)
rotated=$(exchequer keys rotate --force)
sees "$rotated" "ES256"
signs_anew() {
  after=$(member "$(exchange "$1")" token)
  [ "${after%%.*}" != "${before%%.*}" ]
}
until_ok signs_anew "$one"
until_ok signs_anew "$two"
[ "$(kids "$one")" = "$(kids "$two")" ] || wrong "the replicas publish different keys after a rotation"
for port in "$one" "$two"; do
  for token in "$before" "$after"; do
    status 200 "http://127.0.0.1:$port/auth/verify" -H "Authorization: Bearer $token"
  done
done
sees "$(exchequer keys list)" "active" "retired"
say "a rotation: the next key signs, and tokens of both pass at both"

# An error: the answer, the log line of its request, the catalogue, and the ladder.
old=$(curl -s "$provider/session-token?age=90")
status 401 "http://127.0.0.1:$two/auth/exchange" -H "Authorization: Bearer $old" -X POST
refusal=$(cat "$SCRATCH/body")
sees "$refusal" '"code":"subject_token_expired"'
line=$(grep -F "$(member "$refusal" request_id)" "$SCRATCH/two.log")
sees "$line" '"check":"expiry"' '"expected":"later than now'
sees "$(exchequer errors subject_token_expired)" "cause" "confirm" "mend"
explained=$(printf %s "$old" | exchequer explain) && wrong "explain takes an expired token"
sees "$explained" "FAIL" "expiry" "subject_token_expired"
case $line$explained in *"$old"*) wrong "a token is shown" ;; esac
say "an error is led back to its cause"
