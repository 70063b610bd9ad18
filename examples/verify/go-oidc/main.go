// A backend that verifies app JWTs with go-oidc.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
)

type claims struct {
	Subject string `json:"sub"`
	Scope   string `json:"scope"`
}

func requires(scope string, verifier *oidc.IDTokenVerifier, next func(http.ResponseWriter, claims)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		raw := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		token, err := verifier.Verify(r.Context(), raw)
		var said claims
		if err != nil || token.Claims(&said) != nil {
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

func main() {
	// Reads the metadata, and fails where `issuer` there is not the same, byte for byte.
	provider, err := oidc.NewProvider(context.Background(), os.Getenv("ISSUER"))
	if err != nil {
		log.Fatal(err)
	}
	verifier := provider.Verifier(&oidc.Config{
		ClientID:             os.Getenv("AUDIENCE"), // `aud`; empty, it refuses everything
		SupportedSigningAlgs: []string{cmp.Or(os.Getenv("ALG"), oidc.ES256)},
	})
	http.HandleFunc("GET /reports", requires("read:reports", verifier, func(w http.ResponseWriter, said claims) {
		json.NewEncoder(w).Encode(map[string]string{"user": said.Subject})
	}))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "3000"), nil))
}
