"""An OTLP receiver of OpenTelemetry's own protobuf messages: what it takes is written to standard
output, a line of JSON for each export, as go/receiver writes it.

receiver.py ADDRESS"""

import base64
import http.server
import json
import sys
import threading

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

LINE = threading.Lock()


def with_hex_ids(part):
    """OTLP's own JSON has ids in hex, that of protobuf in base64."""
    if isinstance(part, list):
        return [with_hex_ids(each) for each in part]
    if not isinstance(part, dict):
        return part
    ids = ("traceId", "spanId", "parentSpanId")
    return {
        name: base64.b64decode(value).hex() if name in ids else with_hex_ids(value)
        for name, value in part.items()
    }


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if (self.path, self.headers["content-type"]) != ("/v1/traces", "application/x-protobuf"):
            self.send_error(404)
            return
        request = service.ExportTraceServiceRequest.FromString(body)
        traces = MessageToDict(request, use_integers_for_enums=True)
        export = {
            "authorization": self.headers.get_all("authorization"),
            "traces": with_hex_ids(traces),
        }
        with LINE:
            print(json.dumps(export), flush=True)
        answer = service.ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


host, port = sys.argv[1].rsplit(":", 1)
with http.server.ThreadingHTTPServer((host, int(port)), Receiver) as server:
    print("listening", flush=True)
    server.serve_forever()
