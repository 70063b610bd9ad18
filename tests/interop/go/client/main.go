// Go's x/oauth2 as a client of the token endpoint: for each line of JSON it does what its `do`
// says, and prints the answer as a line of JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math"
	"net/url"
	"os"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

type task struct {
	Do           string `json:"do"`
	URL          string `json:"url"`
	ID           string `json:"client_id"`
	Secret       string `json:"secret"`
	Auth         string `json:"auth"`
	RefreshToken string `json:"refresh_token"`
	Callback     string `json:"callback"`
	Verifier     string `json:"code_verifier"`
	RedirectURI  string `json:"redirect_uri"`

	Parameters map[string]string `json:"parameters"`
}

func main() {
	lines := json.NewDecoder(os.Stdin)
	for {
		var t task
		if err := lines.Decode(&t); err == io.EOF {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		text, err := json.Marshal(do(t))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(text))
	}
}

func do(t task) map[string]any {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	styles := map[string]oauth2.AuthStyle{
		"": oauth2.AuthStyleAutoDetect, "header": oauth2.AuthStyleInHeader, "params": oauth2.AuthStyleInParams,
	}
	endpoint := oauth2.Endpoint{TokenURL: t.URL + "/oauth/token", AuthStyle: styles[t.Auth]}
	config := oauth2.Config{ClientID: t.ID, ClientSecret: t.Secret, Endpoint: endpoint, RedirectURL: t.RedirectURI}
	var token *oauth2.Token
	var err error
	switch t.Do {
	case "client_credentials":
		own := clientcredentials.Config{
			ClientID: t.ID, ClientSecret: t.Secret, TokenURL: endpoint.TokenURL, AuthStyle: endpoint.AuthStyle,
			EndpointParams: url.Values{},
		}
		for name, value := range t.Parameters {
			own.EndpointParams.Set(name, value)
		}
		token, err = own.Token(ctx)
	case "refresh":
		token, err = config.TokenSource(ctx, &oauth2.Token{RefreshToken: t.RefreshToken}).Token()
	case "code":
		callback, _ := url.Parse(t.Callback)
		token, err = config.Exchange(ctx, callback.Query().Get("code"), oauth2.VerifierOption(t.Verifier))
	default:
		log.Fatalf("do %q?", t.Do)
	}
	if err != nil {
		if refused, ok := err.(*oauth2.RetrieveError); ok {
			return map[string]any{"error": refused.ErrorCode, "description": refused.ErrorDescription}
		}
		return map[string]any{"error": fmt.Sprintf("%T", err), "description": err.Error()}
	}
	return map[string]any{"ok": map[string]any{
		"access_token": token.AccessToken, "token_type": token.Type(), "refresh_token": token.RefreshToken,
		"expires_in": int(math.Round(time.Until(token.Expiry).Seconds())), "scope": token.Extra("scope"),
	}}
}
