# Every target does its own set-up, says what it does, and is quick when there is nothing to do.
.NOTPARALLEL:
.PHONY: help setup build test demo check cuda asan bench oracle clean

help:
	@echo 'make test     set up, build, run all tests'
	@echo 'make demo     set up, build, the exact Hessian of 32 weights of SmolLM2-135M with its picture'
	@echo 'make setup    system packages and .venv            make build    build/cpu/hesper'
	@echo 'make cuda     build/cuda/hesper (needs nvcc)       make asan     tests under the sanitizers'
	@echo 'make check    format, build, tests, clang-tidy     make bench    build/bench with bench/'
	@echo 'make oracle   .venv-oracle with transformers       make clean    remove build/'

setup:
	@scripts/setup

build: setup
	@scripts/build cpu

test: build
	@scripts/test cpu

demo: build
	@scripts/demo

check:
	@scripts/check

cuda:
	@scripts/setup cuda
	@scripts/build cuda

bench: setup
	@scripts/build bench

asan: setup
	@scripts/build asan
	@scripts/test asan

oracle:
	@scripts/setup oracle

clean:
	rm -rf build
