tf-mmloss export runs/mine --out served
tf-mmloss export runs/mine --format onnx --out served-onnx
tf-mmloss export runs/mine --format litert --out served-litert
