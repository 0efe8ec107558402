// Python bindings, without logic.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>

#include "abi.hpp"
#include "bindings.hpp"
#include "plan.hpp"
#include "ptx/machine.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {
struct CleanFloatMode {
  std::optional<ree::FloatMode> mode;
};

// The bytes of an array, which lie in one piece: far quicker than asking NumPy for the address.
class Bytes {
 public:
  explicit Bytes(nb::handle array) {
    if (PyObject_GetBuffer(array.ptr(), &view_, PyBUF_SIMPLE)) throw nb::python_error();
  }
  ~Bytes() { PyBuffer_Release(&view_); }
  const void* data() const { return view_.buf; }
  int64_t size() const { return view_.len; }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;

 private:
  Py_buffer view_;
};
}  // namespace

NB_MODULE(_core, m) {
  m.attr("abi") = ree::abi::kVersion;
  nb::class_<ree::Pool>(m, "Pool")
      .def(nb::init<int>(), "threads"_a)
      .def_prop_ro("threads", &ree::Pool::threads);
  nb::class_<ree::Plan>(m, "Plan")
      .def(nb::init<const std::string&>(), "isa"_a)
      .def("add", &ree::Plan::add, "kernel"_a, "slots"_a, "params"_a)
      .def("__len__", &ree::Plan::size)
      .def(
          "run",
          [](const ree::Plan& plan, ree::Pool& pool, const std::vector<uint64_t>& table,
             bool interruptible) {
            std::vector<void*> p(table.size());
            for (size_t i = 0; i < p.size(); ++i) p[i] = reinterpret_cast<void*>(table[i]);
            nb::gil_scoped_release release;
            std::function<void()> poll = [] {
              nb::gil_scoped_acquire acquire;
              if (PyErr_CheckSignals()) throw nb::python_error();
            };
            plan.run(pool, p.data(), static_cast<int64_t>(p.size()),
                     interruptible ? poll : std::function<void()>());
          },
          "pool"_a, "table"_a, "interruptible"_a = false);
  m.def("isa_names", [] {
    std::string_view names[8];
    int n = ree::isa_names(names, 8);
    return std::vector<std::string>(names, names + n);
  });
  m.def("panel", [](const std::string& isa) {
    const ree::KernelTable* t = ree::find_isa(isa);
    if (!t) throw std::invalid_argument("instruction set '" + isa + "' is not available here");
    return t->panel;
  });
  m.def("byte_group", [](const std::string& isa) { return ree::byte_group(isa); });
  m.def("address",
        [](nb::handle array) { return reinterpret_cast<uintptr_t>(Bytes(array).data()); });
  m.def("ptx_functions", &ree::ptx::functions);
  m.def("ptx_layout", &ree::ptx::layout);
  m.def(
      "ptx_run",
      [](ree::Pool& pool, uint64_t code, uint32_t threads, uint32_t frame_bytes,
         uint32_t shared_bytes, uint32_t granule, std::vector<uint32_t> grid, nb::bytes params,
         std::vector<std::pair<uint64_t, uint64_t>> extents, uint32_t order, bool late) {
        ree::ptx::Launch l{reinterpret_cast<ree::ptx::Code>(code),
                           threads,
                           frame_bytes,
                           shared_bytes,
                           granule,
                           {grid.at(0), grid.at(1), grid.at(2)},
                           {},
                           std::move(extents),
                           order,
                           late};
        const auto* p = static_cast<const uint8_t*>(params.data());
        l.params.assign(p, p + params.size());
        ree::ptx::FaultReport r;
        {
          nb::gil_scoped_release release;
          r = ree::ptx::run(pool, l);
        }
        return nb::make_tuple(static_cast<uint32_t>(r.kind), r.line, r.other, r.address,
                              nb::make_tuple(r.cta[0], r.cta[1], r.cta[2]), r.thread);
      },
      "pool"_a, "code"_a, "threads"_a, "frame_bytes"_a, "shared_bytes"_a, "granule"_a, "grid"_a,
      "params"_a, "extents"_a, "order"_a, "late"_a);
  m.attr("SCAN_ALONE") = ree::kScanAlone;
  m.def(
      "has_nan",
      [](nb::handle array, ree::Pool* pool) {
        const Bytes bytes(array);
        nb::gil_scoped_release release;
        return ree::has_nan(static_cast<const uint32_t*>(bytes.data()), bytes.size() / 4, pool);
      },
      "array"_a, "pool"_a.none());
  ree::bind_call(m);
  m.def("float_mode_is_clean", &ree::FloatMode::is_clean);
  nb::class_<CleanFloatMode>(m, "CleanFloatMode")
      .def(nb::init<>())
      .def("__enter__", [](CleanFloatMode& self) { self.mode.emplace(); })
      .def("__exit__", [](CleanFloatMode& self, nb::args) { self.mode.reset(); });
}
