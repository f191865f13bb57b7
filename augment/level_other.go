//go:build noasm || !amd64

package augment

func best() level { return levelGeneric }
