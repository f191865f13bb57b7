// Package caffe reads networks that Caffe has trained, as its bvlc_alexnet: a
// .caffemodel says what the network is and has its weights, a .binaryproto the mean
// image. The protocol is that of src/caffe/proto/caffe.proto of BVLC/caffe, in its
// two forms: "layers" (2014) and "layer" (since).
//
//	proto.go   the wire format: messages, numbers, blobs
//	layers.go  layers of Caffe as ours
//	model.go   the network
//	mean.go    the mean image
package caffe
