// torch_parallel_for by threads of its own, to be preloaded before PyTorch's, whose OpenMP the thread sanitizer does not see into.
// `make sanitize-threads`: kernels that have no race with four fresh threads, and more ranges than threads, have none with any pool.
#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace {

constexpr int kThreads = 4;
thread_local bool inside = false;

}  // namespace

extern "C" __attribute__((visibility("default"))) int32_t torch_parallel_for(
    int64_t begin, int64_t end, int64_t, void (*function)(int64_t, int64_t, void*), void* context) {
  // No grain: even the smallest case is divided. Nested calls stay with their thread, as PyTorch's do.
  if (inside) {
    function(begin, end, context);
    return 0;
  }
  std::atomic<int64_t> next{begin};
  std::atomic<bool> failed{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      inside = true;
      try {
        for (int64_t at; (at = next.fetch_add(1, std::memory_order_relaxed)) < end;) function(at, at + 1, context);
      } catch (const std::exception&) {
        failed = true;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return failed ? 1 : 0;
}
