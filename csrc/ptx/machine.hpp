// What translated PTX runs on: the blocks of a grid over threads, a block's warps one after the
// other from barrier to barrier, memory that is checked at every access, copies that arrive early
// or late.
//
// Translated code is one function a kernel, `int32_t f(Warp*, uint8_t* frame, const uint8_t*
// params)`, which runs a warp from block `Warp::resume` to its next barrier or its end. It reads
// and writes the head of Warp, whose places Python asks for (layout), and calls the functions of
// the table for memory and matrices.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "pool.hpp"

namespace ree::ptx {

constexpr int kLanes = 32;
constexpr uint32_t kSharedBase =
    1024;                          // where a block's shared memory begins: 0 is no valid address
constexpr uint8_t kPoison = 0xB5;  // bytes of memory that nobody wrote
constexpr int kDataWords = 256;    // 64-bit words for a lane's operands

enum class Fault : uint32_t {
  kNone,
  kGlobalBounds,
  kSharedBounds,
  kAlignment,
  kRace,
  kDivergentSync,
  kDivergentBarrier,
  kBudget,
  kLaneWithoutValue,
  kBarrierWithoutAll,
};

struct Machine;

struct Copy {
  uint32_t to, size, given, line;
  uint64_t from;
};

struct Warp {
  uint32_t mask;    // lanes at work now
  uint32_t live;    // lanes that have not left the kernel
  uint32_t resume;  // block of code to go on with
  uint32_t index;   // of the warp in its block
  uint32_t fault;   // not 0 once something went wrong in the grid
  uint32_t budget;  // backward jumps left before the kernel counts as endless
  uint32_t ctaid[3];
  uint32_t nctaid[3];
  uint32_t at[kLanes];  // block that each lane waits for, where they went apart
  alignas(64) uint64_t address[kLanes];
  alignas(64) uint64_t data[kDataWords];  // operands and results: [operand][lane]
  Machine* machine;
  std::vector<std::vector<Copy>> copies;  // groups, the last one open
};

using Code = int32_t (*)(Warp*, uint8_t*, const uint8_t*);
enum : int32_t { kLeft = 0, kAtBarrier = 1, kFaulted = 2 };

struct FaultReport {
  Fault kind = Fault::kNone;
  uint32_t line = 0, other = 0;  // lines of PTX; `other` is the earlier access of a race
  uint64_t address = 0;
  uint32_t cta[3] = {0, 0, 0};
  uint32_t thread = 0;
};

struct Launch {
  Code code;
  uint32_t threads, frame_bytes, shared_bytes;
  uint32_t granule;  // bytes of the narrowest access to shared memory: what races are watched in
  uint32_t grid[3];
  std::vector<uint8_t> params;
  std::vector<std::pair<uint64_t, uint64_t>>
      extents;     // [low, high) of memory that may be touched, sorted
  uint32_t order;  // of warps and blocks: 0 ascending, 1 descending, else a seed
  bool late;       // copies arrive when they are waited for, not when they are issued
};

// Runs a grid; what went wrong first, if anything.
FaultReport run(Pool& pool, const Launch& launch);

// The functions that translated code calls, by name.
std::vector<std::pair<std::string, uint64_t>> functions();

// Offsets of Warp's fields that translated code uses, and sizes, by name.
std::vector<std::pair<std::string, uint64_t>> layout();

// One block of threads at work.
struct Machine {
  const Launch* launch;
  std::vector<uint8_t> shared;
  // Who touched a granule of shared memory last, since which barrier, at which line: (epoch << 6 |
  // warp + 1). Warp number kMany stands for several readers.
  std::vector<uint32_t> written, read, written_line, read_line;
  uint32_t epoch = 1;
  FaultReport report;
  std::vector<Warp> warps;
  std::vector<uint8_t> frames;

  explicit Machine(const Launch& l);
  // Whether [at, at + size) may be touched by a lane; if not, or if it is not aligned, a fault.
  bool global_ok(Warp& w, uint64_t at, uint32_t size, int lane, uint32_t line);
  bool shared_ok(Warp& w, uint64_t at, uint32_t size, int lane, uint32_t line);
  void note_read(Warp& w, uint32_t at, uint32_t size, int lane, uint32_t line);
  void write_shared(Warp& w, uint64_t at, const void* from, uint32_t size, int lane, uint32_t line);
  uint8_t* at_shared(uint64_t at) { return shared.data() + (at - kSharedBase); }
  void fault(Warp& w, Fault kind, uint32_t line, uint64_t address, int lane, uint32_t other = 0);
  // Runs the block of threads `cta`; false if something went wrong.
  bool run_block(const uint32_t cta[3], uint32_t number);
};

// Finishes a copy.
void land(Warp& w, const Copy& c);

// Finishes copies of all but the newest `groups` committed groups.
void arrive(Warp& w, size_t groups);

}  // namespace ree::ptx
