// Exchanges that are not there: a copy of the bytes and a wait, on a stream of their own.
//
// `start` lets the exchange stream wait for the compute stream and queues there what stands for the
// exchange; `done` lets the compute stream wait for it. The host waits for nothing.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <string>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int kSlots = 4096;

struct State {
  cudaStream_t stream = nullptr;
  cudaEvent_t ready[kSlots] = {};
  cudaEvent_t done[kSlots] = {};
  unsigned long long* began = nullptr;
  std::mutex mutex;
};

State& state() {
  static State it;
  return it;
}

double scale = 1.0;
long long starts = 0;

__global__ void note(unsigned long long* began) {
  unsigned long long now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  *began = now;
}

// Ends `ns` after `note` ran; the copy lies in between and counts.
__global__ void wait_until(const unsigned long long* began, unsigned long long ns) {
  unsigned long long now;
  do {
    __nanosleep(100);
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  } while (now < *began + ns);
}

ffi::Error check(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return ffi::Error::Success();
  return ffi::Error::Internal(std::string(what) + ": " + cudaGetErrorString(code));
}

ffi::Error prepare(State& it, int64_t number) {
  if (number < 0 || number >= kSlots) return ffi::Error::InvalidArgument("number of exchange");
  std::lock_guard<std::mutex> lock(it.mutex);
  cudaError_t code = cudaSuccess;
  if (it.stream == nullptr) {
    int least = 0, greatest = 0;
    code = cudaDeviceGetStreamPriorityRange(&least, &greatest);
    if (code == cudaSuccess)
      code = cudaStreamCreateWithPriority(&it.stream, cudaStreamNonBlocking, greatest);
    if (code == cudaSuccess) code = cudaMalloc(&it.began, sizeof(*it.began));
  }
  if (code == cudaSuccess && it.ready[number] == nullptr) {
    code = cudaEventCreateWithFlags(&it.ready[number], cudaEventDisableTiming);
    if (code == cudaSuccess)
      code = cudaEventCreateWithFlags(&it.done[number], cudaEventDisableTiming);
  }
  return check(code, "streams and events");
}

cudaError_t queue(State& it, cudaStream_t compute, int64_t number, double us,
                  ffi::RemainingArgs sent, ffi::RemainingRets made) {
  cudaError_t code = cudaEventRecord(it.ready[number], compute);
  if (code == cudaSuccess) code = cudaStreamWaitEvent(it.stream, it.ready[number], 0);
  const double ns = us * scale * 1e3;
  if (ns > 0) note<<<1, 1, 0, it.stream>>>(it.began);
  for (size_t i = 0; i < made.size() && code == cudaSuccess; ++i) {
    auto from = sent.get<ffi::AnyBuffer>(std::min(i, sent.size() - 1));
    auto to = made.get<ffi::AnyBuffer>(i);
    if (!from.has_value() || !to.has_value()) return cudaErrorInvalidValue;
    const size_t bytes = std::min(from->size_bytes(), (*to)->size_bytes());
    if (bytes == 0 || from->untyped_data() == (*to)->untyped_data()) continue;
    code = cudaMemcpyAsync((*to)->untyped_data(), from->untyped_data(), bytes,
                           cudaMemcpyDeviceToDevice, it.stream);
  }
  if (ns > 0) wait_until<<<1, 1, 0, it.stream>>>(it.began, static_cast<unsigned long long>(ns));
  if (code == cudaSuccess) code = cudaGetLastError();
  if (code == cudaSuccess) code = cudaEventRecord(it.done[number], it.stream);
  return code;
}

ffi::Error start(cudaStream_t compute, int64_t number, double us, ffi::RemainingArgs sent,
                 ffi::RemainingRets made) {
  State& it = state();
  if (ffi::Error error = prepare(it, number); error.failure()) return error;
  ++starts;
  return check(queue(it, compute, number, us, sent, made), "start of an exchange");
}

ffi::Error done(cudaStream_t compute, int64_t number, ffi::RemainingArgs, ffi::RemainingRets) {
  State& it = state();
  if (number < 0 || number >= kSlots || it.done[number] == nullptr)
    return ffi::Error::InvalidArgument("an exchange that did not start");
  return check(cudaStreamWaitEvent(compute, it.done[number], 0), "end of an exchange");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(lancet_exchange_start, start,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<cudaStream_t>>()
                                  .Attr<int64_t>("number")
                                  .Attr<double>("us")
                                  .RemainingArgs()
                                  .RemainingRets());

XLA_FFI_DEFINE_HANDLER_SYMBOL(lancet_exchange_done, done,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<cudaStream_t>>()
                                  .Attr<int64_t>("number")
                                  .RemainingArgs()
                                  .RemainingRets());

extern "C" void lancet_set_scale(double value) { scale = value; }
extern "C" long long lancet_starts() { return starts; }
