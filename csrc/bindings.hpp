// What module.cpp binds of other files.
#pragma once

namespace nanobind {
class module_;
}

namespace ree {
void bind_call(nanobind::module_& m);
}
