#include "ptx/machine.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <mutex>

namespace ree::ptx {

namespace {
constexpr uint32_t kMany = 63;  // in a tag: readers of several warps
constexpr uint32_t kEpochs = 1u << 26;
constexpr uint32_t kBudget = 1u << 28;

uint32_t tag(uint32_t epoch, uint32_t who) { return epoch << 6 | who; }
uint32_t who_of(uint32_t t) { return t & 63; }
}  // namespace

Machine::Machine(const Launch& l)
    : launch(&l), shared(l.shared_bytes), warps((l.threads + 31) / 32) {
  const size_t granules = l.shared_bytes / l.granule + 1;
  for (auto* v : {&written, &read, &written_line, &read_line}) v->assign(granules, 0);
  frames.resize(static_cast<size_t>(l.frame_bytes) * warps.size() + 64);
}

void Machine::fault(Warp& w, Fault kind, uint32_t line, uint64_t address, int lane,
                    uint32_t other) {
  for (Warp& x : warps) x.fault = 1;
  if (report.kind != Fault::kNone) return;
  report.kind = kind;
  report.line = line;
  report.other = other;
  report.address = address;
  std::copy(w.ctaid, w.ctaid + 3, report.cta);
  report.thread = w.index * kLanes + static_cast<uint32_t>(lane);
}

bool Machine::global_ok(Warp& w, uint64_t at, uint32_t size, int lane, uint32_t line) {
  for (const auto& [low, high] : launch->extents) {
    if (at >= low && at < high && size <= high - at) {
      if ((at & (size - 1)) == 0) return true;
      fault(w, Fault::kAlignment, line, at, lane);
      return false;
    }
  }
  fault(w, Fault::kGlobalBounds, line, at, lane);
  return false;
}

bool Machine::shared_ok(Warp& w, uint64_t at, uint32_t size, int lane, uint32_t line) {
  if (at < kSharedBase || at - kSharedBase > shared.size() ||
      size > shared.size() - (at - kSharedBase)) {
    fault(w, Fault::kSharedBounds, line, at, lane);
    return false;
  }
  if (at & (size - 1)) {
    fault(w, Fault::kAlignment, line, at, lane);
    return false;
  }
  return true;
}

void Machine::note_read(Warp& w, uint32_t at, uint32_t size, int lane, uint32_t line) {
  const uint32_t g = launch->granule, me = w.index + 1;
  const uint32_t first = (at - kSharedBase) / g, last = (at - kSharedBase + size - 1) / g;
  for (uint32_t i = first; i <= last; ++i) {
    const uint32_t by = written[i];
    if (by >> 6 == epoch && who_of(by) != me) {
      fault(w, Fault::kRace, line, at, lane, written_line[i]);
      return;
    }
    const uint32_t before = read[i];
    const bool shared_by_many = before >> 6 == epoch && who_of(before) != me;
    read[i] = tag(epoch, shared_by_many ? kMany : me);
    read_line[i] = line;
  }
}

void Machine::write_shared(Warp& w, uint64_t at, const void* from, uint32_t size, int lane,
                           uint32_t line) {
  uint8_t* to = at_shared(at);
  const uint32_t g = launch->granule, me = w.index + 1;
  const uint32_t offset = static_cast<uint32_t>(at) - kSharedBase;
  // the same bytes again can be seen by nobody
  if (std::memcmp(to, from, size) != 0) {
    for (uint32_t i = offset / g; i <= (offset + size - 1) / g; ++i) {
      for (const bool wrote : {true, false}) {
        const uint32_t by = wrote ? written[i] : read[i];
        if (by >> 6 == epoch && who_of(by) != me) {
          fault(w, Fault::kRace, line, at, lane, wrote ? written_line[i] : read_line[i]);
          return;
        }
      }
    }
    std::memcpy(to, from, size);
  }
  for (uint32_t i = offset / g; i <= (offset + size - 1) / g; ++i) {
    written[i] = tag(epoch, me);
    written_line[i] = line;
  }
}

void land(Warp& w, const Copy& c) {
  uint8_t bytes[16] = {};
  std::memcpy(bytes, reinterpret_cast<const void*>(c.from), c.given);
  w.machine->write_shared(w, c.to, bytes, c.size, 0, c.line);
}

void arrive(Warp& w, size_t groups) {
  while (w.copies.size() > groups + 1) {
    for (const Copy& c : w.copies.front()) land(w, c);
    w.copies.erase(w.copies.begin());
  }
}

bool Machine::run_block(const uint32_t cta[3], uint32_t number) {
  const Launch& l = *launch;
  std::memset(shared.data(), kPoison, shared.size());
  std::memset(frames.data(), kPoison, frames.size());
  if (epoch > kEpochs - (1u << 20)) {
    for (auto* v : {&written, &read}) std::fill(v->begin(), v->end(), 0u);
    epoch = 0;
  }
  ++epoch;
  const uint32_t count = static_cast<uint32_t>(warps.size());
  std::vector<uint32_t> order(count);
  for (uint32_t i = 0; i < count; ++i) {
    Warp& w = warps[i];
    const uint32_t lanes = std::min<uint32_t>(kLanes, l.threads - i * kLanes);
    w.mask = w.live = lanes == 32 ? ~0u : (1u << lanes) - 1;
    w.resume = 0;
    w.index = i;
    w.fault = 0;
    w.budget = kBudget;
    w.machine = this;
    std::copy(cta, cta + 3, w.ctaid);
    std::copy(l.grid, l.grid + 3, w.nctaid);
    w.copies.assign(1, {});
    order[i] = l.order == 1 ? count - 1 - i : i;
  }
  std::vector<bool> left(count, false);
  uint64_t state = l.order * 0x9E3779B97F4A7C15ull + number;
  uint8_t* frame = frames.data() + (64 - reinterpret_cast<uintptr_t>(frames.data()) % 64) % 64;
  for (uint32_t gone = 0; gone < count;) {
    if (l.order > 1) {
      for (uint32_t i = count; i > 1; --i) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        std::swap(order[i - 1], order[(state >> 33) % i]);
      }
    }
    for (const uint32_t i : order) {
      if (left[i]) continue;
      Warp& w = warps[i];
      const int32_t code =
          l.code(&w, frame + static_cast<size_t>(i) * l.frame_bytes, l.params.data());
      if (code == kLeft) {
        left[i] = true;
        ++gone;
        w.copies.emplace_back();
        arrive(w, 0);
      }
      if (report.kind != Fault::kNone) return false;
    }
    ++epoch;
  }
  return true;
}

FaultReport run(Pool& pool, const Launch& l) {
  const auto lock = pool.exclusive();
  std::vector<std::unique_ptr<Machine>> machines(static_cast<size_t>(pool.threads()));
  FaultReport first;
  int64_t first_at = INT64_MAX;
  std::mutex mutex;
  const FloatMode mode;
  const int64_t total = static_cast<int64_t>(l.grid[0]) * l.grid[1] * l.grid[2];
  pool.parallel_for(total, [&](int64_t i, int thread) {
    if (l.order & 1) i = total - 1 - i;
    auto& machine = machines[static_cast<size_t>(thread)];
    {
      const std::lock_guard guard(mutex);
      if (first_at < INT64_MAX) return;
    }
    if (!machine) machine = std::make_unique<Machine>(l);
    const auto n = static_cast<uint64_t>(i);
    const uint32_t cta[3] = {static_cast<uint32_t>(n % l.grid[0]),
                             static_cast<uint32_t>(n / l.grid[0] % l.grid[1]),
                             static_cast<uint32_t>(n / l.grid[0] / l.grid[1])};
    if (machine->run_block(cta, static_cast<uint32_t>(n))) return;
    const std::lock_guard guard(mutex);
    if (i < first_at) first = machine->report, first_at = i;
  });
  return first;
}

std::vector<std::pair<std::string, uint64_t>> layout() {
  return {
      {"mask", offsetof(Warp, mask)},     {"live", offsetof(Warp, live)},
      {"resume", offsetof(Warp, resume)}, {"index", offsetof(Warp, index)},
      {"fault", offsetof(Warp, fault)},   {"ctaid", offsetof(Warp, ctaid)},
      {"nctaid", offsetof(Warp, nctaid)}, {"address", offsetof(Warp, address)},
      {"data", offsetof(Warp, data)},     {"data_bytes", sizeof(Warp::data)},
      {"shared_base", kSharedBase},
  };
}

}  // namespace ree::ptx
