// What CUDA's C++ has beside the language, for a compiler of the processor: kernels.cu after it is a
// library that runs blocks one after another, and the threads of a block in turn.
//
// A thread runs until it waits for the others of its block (a warp's exchange is taken for that, too), then
// the next one does; from the first to the last in every other block, in the rest from the last to the first,
// so that what lacks a wait is seen. Each thread has a stack of its own, and is left and entered by jumps
// (Engelschall 2000, "Portable multithreading: the signal stack trick").

#include <csetjmp>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <ucontext.h>
#include <utility>

#define __device__
#define __global__
#define __shared__ static
#define __launch_bounds__(threads)
#define __syncthreads() simulated::wait(__LINE__)
#define __shfl_down_sync(mask, value, offset) \
    simulated::exchange(value, threadIdx.x % 32 + (offset) < 32 ? threadIdx.x + (offset) : threadIdx.x, __LINE__)
#define __shfl_xor_sync(mask, value, offset) simulated::exchange(value, threadIdx.x ^ (offset), __LINE__)

struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, blockDim, gridDim;

namespace simulated {

constexpr int MOST = 1024, STACK = 1 << 16;
enum Problem { NONE, NOT_ALL_WAIT, WAIT_IN_TURN };

struct Thread {
    jmp_buf place;     // where it waits
    int line;          // of what it waits for, 0: it is done
    unsigned turn;     // how many values it has handed to others
    bool has_stack;
};

static Thread threads[MOST];
static char stacks[MOST][STACK];
static unsigned long long handed[2][MOST];
static jmp_buf scheduler;
static ucontext_t first;
static void (*body)(void* const*);
static void* const* arguments;
static bool in_turn;  // no thread waits: each is a call
static Problem problem;

inline void leave(int line) {
    Thread& own = threads[threadIdx.x];
    own.line = line;
    if (!_setjmp(own.place)) _longjmp(scheduler, 1);
}

inline void wait(int line) {
    if (in_turn) problem = WAIT_IN_TURN;
    else leave(line);
}

// What thread `from` hands over where this one does.
template <typename T>
T exchange(T value, unsigned from, int line) {
    // Two places, so that one who is ahead leaves what others have not read yet.
    unsigned long long* all = handed[threads[threadIdx.x].turn++ % 2];
    std::memcpy(&all[threadIdx.x], &value, sizeof value);
    wait(line);
    std::memcpy(&value, &all[from], sizeof value);
    return value;
}

inline void live() {
    for (;;) {
        body(arguments);
        leave(0);
    }
}

inline unsigned in_order(unsigned i) { return blockIdx.x % 2 ? blockDim.x - 1 - i : i; }

inline void resume(unsigned number) {
    Thread& thread = threads[number];
    threadIdx.x = number;
    if (_setjmp(scheduler)) return;
    if (thread.has_stack) _longjmp(thread.place, 1);
    thread.has_stack = true;
    getcontext(&first);
    first.uc_stack.ss_sp = stacks[number];
    first.uc_stack.ss_size = STACK;
    first.uc_link = nullptr;
    makecontext(&first, live, 0);
    setcontext(&first);
}

// Until all threads of a block are done; returns whether they ever waited for each other.
inline bool run_block() {
    for (unsigned i = 0; i < blockDim.x; i++) threads[i].line = -1, threads[i].turn = 0;
    for (bool has_waited = false;; has_waited = true) {
        int line = 0;  // of what they wait for
        for (unsigned i = 0; i < blockDim.x; i++) {
            Thread& thread = threads[in_order(i)];
            if (!thread.line) continue;  // it was done before
            resume(in_order(i));
            if (line && thread.line && thread.line != line) problem = NOT_ALL_WAIT;
            if (thread.line) line = thread.line;
        }
        if (!line || problem) return has_waited;
    }
}

inline int run(void (*kernel)(void* const*), void* const* given, unsigned columns, unsigned rows, unsigned size) {
    body = kernel, arguments = given, problem = NONE, in_turn = false;
    gridDim = {columns, rows, 1}, blockDim = {size, 1, 1};
    for (unsigned number = 0; number < columns * rows && !problem; number++) {
        blockIdx = {number % columns, number / columns, 0};
        if (in_turn)
            for (unsigned i = 0; i < size; i++) threadIdx.x = in_order(i), kernel(given);
        else
            in_turn = !run_block();  // if those of the first block do not wait, none does
    }
    return problem;
}

template <auto kernel> struct Launch;
template <typename... P, void (*kernel)(P...)> struct Launch<kernel> {
    template <std::size_t... I> static void unpacked(void* const* given, std::index_sequence<I...>) {
        kernel(*static_cast<P*>(given[I])...);
    }
    static void with(void* const* given) { unpacked(given, std::index_sequence_for<P...>()); }
};

}  // namespace simulated

template <typename T> T max(T a, T b) { return a < b ? b : a; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
inline long long __double_as_longlong(double x) { long long bits; std::memcpy(&bits, &x, 8); return bits; }
inline double __longlong_as_double(long long bits) { double x; std::memcpy(&x, &bits, 8); return x; }
inline void atomicMax(unsigned long long* at, unsigned long long value) { if (value > *at) *at = value; }
using std::isfinite;

// The function `name` launches a kernel: a pointer to each argument, blocks along both axes, threads.
#define LAUNCHES(name, ...) \
    extern "C" int name(void* const* given, unsigned columns, unsigned rows, unsigned size) { \
        return simulated::run(simulated::Launch<__VA_ARGS__>::with, given, columns, rows, size); \
    }
