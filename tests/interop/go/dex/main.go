// A real Dex on loopback: one client, users from its mock connector, nothing kept.
//
// Usage: dex WEB_FOLDER REDIRECT_URI. Prints its issuer, as JSON, once it listens; ends when its input ends.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/dexidp/dex/server"
	"github.com/dexidp/dex/storage"
	"github.com/dexidp/dex/storage/memory"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

func main() {
	web := os.Args[1]
	redirect := os.Args[2]
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	issuer := "http://" + listener.Addr().String() + "/dex"
	logger := logrus.New()
	logger.SetOutput(os.Stderr)
	logger.SetLevel(logrus.ErrorLevel)
	kept := storage.WithStaticClients(memory.New(logger), []storage.Client{{
		ID:           "exchequer",
		Secret:       "dex-knows-this-secret",
		RedirectURIs: []string{redirect},
		Name:         "Exchequer",
	}})
	kept = storage.WithStaticConnectors(kept, []storage.Connector{{
		ID: "mock", Type: "mockCallback", Name: "Mock", Config: []byte("{}"),
	}})
	dex, err := server.NewServer(context.Background(), server.Config{
		Issuer:             issuer,
		Storage:            kept,
		SkipApprovalScreen: true,
		Web:                server.WebConfig{Dir: filepath.Clean(web)},
		Logger:             logger,
		PrometheusRegistry: prometheus.NewRegistry(),
	})
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.Serve(listener, dex)) }()
	fmt.Printf("%q\n", issuer)
	_, _ = io.Copy(io.Discard, os.Stdin)
}
