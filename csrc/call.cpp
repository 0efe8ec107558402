// A run without Python between its ends: torch tensors in, torch tensors out, checked and bound
// here. It serves calls that need nothing else, and says so of others, which take the ordinary way.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "bindings.hpp"
#include "dlpack.hpp"
#include "plan.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace ree {
namespace {

// An input or output: its type, its extents, and where its address goes.
struct End {
  dlpack::DataType dtype;
  bool scan;  // a NaN may not be in it
  std::vector<int64_t> dims;
  std::vector<std::pair<int64_t, int64_t>> places;  // slot, offset in bytes

  int64_t elements() const {
    int64_t n = 1;
    for (int64_t d : dims) n *= d;
    return n;
  }
  void bind(std::vector<void*>& table, void* data) const {
    for (const auto& [slot, offset] : places)
      table[static_cast<size_t>(slot)] = static_cast<char*>(data) + offset;
  }
};

std::vector<End> ends_of(nb::handle list) {
  std::vector<End> ends;
  for (nb::handle h : list) {
    const auto t = nb::cast<nb::tuple>(h);
    ends.push_back({{nb::cast<uint8_t>(t[0]), nb::cast<uint8_t>(t[1]), 1},
                    nb::cast<bool>(t[2]),
                    nb::cast<std::vector<int64_t>>(t[3]),
                    nb::cast<std::vector<std::pair<int64_t, int64_t>>>(t[4])});
  }
  return ends;
}

// Memory that is an output, and goes when its tensor does.
struct Output {
  dlpack::Managed managed;
  std::vector<int64_t> dims, strides;
  static void drop(dlpack::Managed* m) {
    std::free(m->tensor.data);
    delete static_cast<Output*>(m->context);
  }
};
struct Drop {
  void operator()(Output* x) const { Output::drop(&x->managed); }
};
using Owned = std::unique_ptr<Output, Drop>;

Owned allocate(const End& end) {
  auto x = std::make_unique<Output>();
  const size_t bytes = static_cast<size_t>(end.elements()) * end.dtype.bits / 8;
  void* data = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!data) return nullptr;
  x->dims = end.dims;
  x->strides.assign(end.dims.size(), 1);
  for (size_t i = end.dims.size(); i-- > 1;) x->strides[i - 1] = x->strides[i] * end.dims[i];
  x->managed = {{dlpack::kMajor, 0},
                x.get(),
                &Output::drop,
                0,
                {data,
                 {dlpack::kCpu, 0},
                 static_cast<int32_t>(end.dims.size()),
                 end.dtype,
                 x->dims.data(),
                 x->strides.data(),
                 0}};
  return Owned(x.release());
}

int64_t cores() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) ? -1 : CPU_COUNT(&set);
}

class Call {
 public:
  Call(const Plan& plan, Pool& pool, nb::handle type, nb::handle inputs, nb::handle outputs,
       std::vector<uint64_t> table,
       std::vector<std::pair<std::string, std::optional<std::string>>> said, bool counted,
       nb::object keep)
      : plan_(plan),
        pool_(pool),
        type_(nb::borrow(type)),
        inputs_(ends_of(inputs)),
        outputs_(ends_of(outputs)),
        said_(std::move(said)),
        keep_(std::move(keep)),
        cores_(counted ? cores() : 0) {
    for (uint64_t x : table) table_.push_back(reinterpret_cast<void*>(x));
    const auto size = static_cast<int64_t>(table_.size());
    for (const auto* ends : {&inputs_, &outputs_})
      for (const End& e : *ends)
        for (const auto& [slot, offset] : e.places)
          if (slot < 0 || slot >= size || offset < 0) throw std::invalid_argument("no such slot");
    const nb::object capsule = type.attr("__dlpack_c_exchange_api__");
    api_ =
        static_cast<const dlpack::Exchange*>(PyCapsule_GetPointer(capsule.ptr(), dlpack::kCapsule));
    if (!api_) throw nb::python_error();
    while (api_ && api_->version.major != dlpack::kMajor) api_ = api_->previous;
    if (!api_ || !api_->from_python) throw std::invalid_argument("DLPack of another version");
  }

  // The outputs; None if these are not tensors of the types, shapes and settings that this call is
  // for, or something went wrong that the ordinary way has to say.
  nb::object operator()(nb::list values) {
    if (busy_.exchange(true, std::memory_order_acquire)) return nb::none();
    struct Leave {
      std::atomic<bool>& busy;
      ~Leave() { busy.store(false, std::memory_order_release); }
    } leave{busy_};
    if (nb::len(values) != inputs_.size() || !here()) return nb::none();
    for (size_t i = 0; i < inputs_.size(); ++i)
      if (!take(values[i], i)) return nb::none();
    std::vector<Owned> outputs;
    for (const End& e : outputs_) {
      outputs.push_back(allocate(e));
      if (!outputs.back()) return nb::none();
      e.bind(table_, outputs.back()->managed.tensor.data);
    }
    if (!run()) return nb::none();
    nb::list out;
    for (Owned& x : outputs) {
      void* object = nullptr;
      if (api_->to_python(&x->managed, &object)) throw nb::python_error();
      (void)x.release();
      out.append(nb::steal(static_cast<PyObject*>(object)));
    }
    return nb::tuple(out);
  }

 private:
  // The process, the thread and the settings are those that this call was made for.
  bool here() const {
    if (getpid() != process_) return false;
    if (pool_.threads() == 1 && std::this_thread::get_id() != thread_) return false;
    for (const auto& [name, value] : said_) {
      const char* now = std::getenv(name.c_str());
      if (value ? !now || *value != now : now != nullptr) return false;
    }
    return !cores_ || cores() == cores_;
  }

  bool take(nb::handle value, size_t i) {
    const End& e = inputs_[i];
    dlpack::Tensor t;
    if (Py_TYPE(value.ptr()) != reinterpret_cast<PyTypeObject*>(type_.ptr())) return false;
    if (api_->from_python(value.ptr(), &t)) {
      PyErr_Clear();
      return false;
    }
    // zeros that torch does not write, and a tensor that stands for another, have no memory
    if (!t.data || t.device.type != dlpack::kCpu || t.dtype.code != e.dtype.code ||
        t.dtype.bits != e.dtype.bits || t.dtype.lanes != 1 ||
        static_cast<size_t>(t.ndim) != e.dims.size())
      return false;
    int64_t step = 1;
    for (size_t k = e.dims.size(); k-- > 0;) {
      if (t.shape[k] != e.dims[k] || (t.strides && e.dims[k] != 1 && t.strides[k] != step))
        return false;
      step *= e.dims[k];
    }
    // a view that stands for its negative has the memory of what it negates
    if (nb::cast<bool>(value.attr(is_neg_)())) return false;
    e.bind(table_, static_cast<char*>(t.data) + t.byte_offset);
    data_[i] = static_cast<char*>(t.data) + t.byte_offset;
    return true;
  }

  bool run() {
    nb::gil_scoped_release release;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const int64_t n = inputs_[i].elements();
      if (inputs_[i].scan &&
          has_nan(static_cast<const uint32_t*>(data_[i]), n, n > kScanAlone ? &pool_ : nullptr))
        return false;
    }
    try {
      plan_.run(pool_, table_.data(), static_cast<int64_t>(table_.size()), [] {
        nb::gil_scoped_acquire acquire;
        if (PyErr_CheckSignals()) throw nb::python_error();
      });
    } catch (const nb::python_error&) {
      throw;
    } catch (const std::exception&) {  // an index out of range, no memory
      return false;
    }
    return true;
  }

  const Plan& plan_;
  Pool& pool_;
  nb::object type_;
  std::vector<End> inputs_, outputs_;
  std::vector<std::pair<std::string, std::optional<std::string>>> said_;
  nb::object keep_;
  const dlpack::Exchange* api_ = nullptr;
  std::vector<void*> table_, data_ = std::vector<void*>(inputs_.size());
  const nb::object is_neg_ = nb::str("is_neg");
  const pid_t process_ = getpid();
  const std::thread::id thread_ = std::this_thread::get_id();
  const int64_t cores_;  // 0: it does not matter
  std::atomic<bool> busy_{false};
};

}  // namespace

void bind_call(nb::module_& m) {
  nb::class_<Call>(m, "Call")
      .def(nb::init<const Plan&, Pool&, nb::handle, nb::handle, nb::handle, std::vector<uint64_t>,
                    std::vector<std::pair<std::string, std::optional<std::string>>>, bool,
                    nb::object>(),
           "plan"_a, "pool"_a, "type"_a, "inputs"_a, "outputs"_a, "table"_a, "said"_a, "counted"_a,
           "keep"_a, nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>())
      .def("__call__", &Call::operator(), "values"_a);
}

}  // namespace ree
