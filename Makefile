# The two commands that a newcomer needs are in README.md; these are short names.
export CGO_ENABLED ?= 0

.PHONY: build test race bench ci

build: ## the binary, in bin/pipeline
	go build -o bin/pipeline ./cmd/pipeline

test:
	go test ./...

# The race detector needs cgo and a C compiler.
race:
	CGO_ENABLED=1 go test -race -short ./pipeline/... ./stages ./gpu ./sinks ./cmd
	CGO_ENABLED=1 go test -race -short -run 'Threads|Task|Close|Golden' ./gpu/host

# The two benchmarks of BENCHMARKS.md.
bench:
	go test ./gpu/host -run xxx -bench 'TrainStep/alexnet$$' -timeout 30m
	go test ./stages -run xxx -bench 'Crop224'

ci:
	.ci/run
