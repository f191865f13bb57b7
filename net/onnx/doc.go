// Package onnx writes networks as ONNX models (opset 17, https://onnx.ai), which
// onnxruntime and most programs that run networks take.
//
//	onnx.go   layers as ONNX's operators
//	proto.go  the wire format
package onnx
