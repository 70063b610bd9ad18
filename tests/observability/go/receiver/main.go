// The OTLP receiver of the OpenTelemetry Collector, and nothing of the rest of it: what it takes is
// written to standard output, a line of JSON for each export.
//
// receiver ADDRESS
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	settings := confmap.NewFromStringMap(map[string]any{
		"protocols": map[string]any{
			"http": map[string]any{"endpoint": address, "include_metadata": true},
		},
	})
	if err := settings.Unmarshal(config); err != nil {
		return err
	}
	var line sync.Mutex
	taken, err := consumer.NewTraces(func(ctx context.Context, traces ptrace.Traces) error {
		body, err := (&ptrace.JSONMarshaler{}).MarshalTraces(traces)
		if err != nil {
			return err
		}
		export, err := json.Marshal(map[string]any{
			"authorization": client.FromContext(ctx).Metadata.Get("authorization"),
			"traces":        json.RawMessage(body),
		})
		if err != nil {
			return err
		}
		line.Lock()
		defer line.Unlock()
		fmt.Println(string(export))
		return nil
	})
	if err != nil {
		return err
	}
	otlp, err := factory.CreateTraces(ctx, receiver.Settings{
		ID:                component.NewID(factory.Type()),
		TelemetrySettings: componenttest.NewNopTelemetrySettings(),
	}, config, taken)
	if err != nil {
		return err
	}
	if err := otlp.Start(ctx, componenttest.NewNopHost()); err != nil {
		return err
	}
	fmt.Println("listening")
	<-ctx.Done()
	return otlp.Shutdown(context.Background())
}
