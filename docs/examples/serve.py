"""Serve the exported ONNX model by onnxruntime and the standard library: a picture is posted, its classes come back."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import onnxruntime

from tf_mmloss.data.images import decode

MOST_BYTES = 20_000_000

model = onnxruntime.InferenceSession("served-onnx/model.onnx")
images = model.get_inputs()[0]
height, width, channels = images.shape[1:]
with open("served-onnx/metadata.json", encoding="utf-8") as file:
    class_names = json.load(file)["class_names"]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        try:
            if length > MOST_BYTES:
                raise ValueError("too large")
            # As in training: turned by EXIF, cropped to the shape (fit="pad" after --fit pad). The model normalises.
            pixels, _ = decode(self.rfile.read(length), height, width, channels, fit="crop")
        except ValueError:
            return self.send_error(400, "no picture")
        (probabilities,) = model.run(None, {images.name: pixels[np.newaxis]})
        answer = dict(zip(class_names, probabilities[0].tolist(), strict=True))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())


if __name__ == "__main__":  # curl --data-binary @photo.jpg http://127.0.0.1:8000
    HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
