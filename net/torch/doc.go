// Package torch reads the weights that PyTorch saves, and knows torchvision's
// AlexNet under PyTorch's names and under ours.
//
//	state.go    a state dict: torch.save's zip format, the one before it, or safetensors
//	pickle.go   what a state dict may be made of, and nothing else
//	alexnet.go  torchvision's names and network
package torch
