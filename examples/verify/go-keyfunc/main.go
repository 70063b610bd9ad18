// A backend that verifies app JWTs with golang-jwt, and fetches their keys with keyfunc.
package main

import (
	"cmp"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

type claims struct {
	jwt.RegisteredClaims
	Scope string `json:"scope"`
}

func requires(scope string, keys jwt.Keyfunc, parser *jwt.Parser, next func(http.ResponseWriter, claims)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		raw := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		var said claims
		if _, err := parser.ParseWithClaims(raw, &said, keys); err != nil {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if !slices.Contains(strings.Fields(said.Scope), scope) {
			w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope"`)
			w.WriteHeader(http.StatusForbidden)
			return
		}
		next(w, said)
	}
}

func needed(name string) string {
	if os.Getenv(name) == "" {
		log.Fatalf("set %s", name)
	}
	return os.Getenv(name)
}

func main() {
	issuer, audience := needed("ISSUER"), needed("AUDIENCE")
	// One for the life of the process: it fetches the keys now, and every hour.
	keys, err := keyfunc.NewDefault([]string{issuer + "/.well-known/jwks.json"})
	if err != nil {
		log.Fatal(err)
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{cmp.Or(os.Getenv("ALG"), "ES256")}), // never what the header says
		jwt.WithIssuer(issuer),
		jwt.WithAudience(audience),
		jwt.WithExpirationRequired(),
	)
	http.HandleFunc("GET /reports", requires("read:reports", keys.Keyfunc, parser, func(w http.ResponseWriter, said claims) {
		json.NewEncoder(w).Encode(map[string]string{"user": said.Subject})
	}))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "3000"), nil))
}
