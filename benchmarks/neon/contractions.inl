// Contractions: float32, narrow weights, bytes; and rows as bytes. Part of main.cpp, behind its
// helpers.
void run_contractions() {
  const int64_t shapes[][3] = {{1, 70, 261}, {2, 50, 129},  {3, 33, 128},   {4, 100, 300},
                               {5, 17, 127}, {33, 65, 300}, {75, 40, 261},  {130, 96, 513},
                               {16, 32, 0},  {7, 13, 1},    {64, 129, 640}, {97, 200, 1030}};
  for (const auto& s : shapes)
    for (int kind = 0; kind < 4; ++kind) {
      const int64_t m = s[0], n = s[1], k = s[2], panel = g_isa->panel;
      const Floats a = floats(m * k + 1, kind, 1), b = floats(k * n + 1, kind, 2);
      Floats packed((size_t)((n + panel - 1) / panel * panel * k + 16)), c((size_t)(m * n), 7.0f);
      call("pack", {b.data(), packed.data()}, {k, n, n, 1, 1, 0, 4});
      call("gemm", {a.data(), packed.data(), nullptr, nullptr, c.data()},
           {1, m, n, k, 0, k, 0, 0, n, 0, 1, 0});
      report(label("gemm", {m, n, k}, kind), c);
      Floats d((size_t)(2 * m * n), 7.0f);
      const Floats a2 = floats(2 * m * k + 1, kind, 3), b2 = floats(2 * k * n + 1, kind, 4);
      call("bmm", {a2.data(), b2.data(), d.data()},
           {1, 2, m, n, k, 0, m * k, k, 1, 0, k * n, n, 1, 0, m * n, n, 0});
      report(label("bmm", {m, n, k}, kind), d);
      call("bmm", {a2.data(), b2.data(), d.data()},  // both sides transposed
           {1, 2, m, n, k, 0, m * k, 1, m, 0, k * n, 1, k, 0, m * n, n, 0});
      report(label("bmm_transposed", {m, n, k}, kind), d);
    }
}

// Weights kept narrow: bf16 and f16 of every bit pattern, i8 in blocks with scales, and with
// offsets too.
void run_narrow() {
  const int64_t shapes[][3] = {{1, 70, 272}, {2, 33, 128},  {4, 100, 304},  {5, 17, 16},
                               {8, 65, 144}, {33, 65, 304}, {97, 200, 1040}};
  for (const auto& s : shapes)
    for (int64_t form = 0; form < 4; ++form) {
      const int64_t m = s[0], n = s[1], k = s[2], panel = g_isa->panel, block = 16;
      const int64_t columns = (n + panel - 1) / panel * panel, bytes = form < 2 ? 2 : 1;
      const int64_t storage = form == 0   ? ree::kStoredBf16
                              : form == 1 ? ree::kStoredF16
                                          : ree::kStoredI8;
      const Floats a = floats(m * k + 1, 0, 1), scale = floats(n * k / block + 1, 0, 2),
                   offset = floats(n * k / block + 1, 0, 3);
      Random r{(uint64_t)(7 * form + m)};
      std::vector<uint16_t> b((size_t)(n * k + 1)), packed((size_t)(columns * k + 16));
      for (auto& x : b) x = (uint16_t)r.next();
      Floats terms[2], c((size_t)(m * n), 7.0f);
      call("pack", {b.data(), packed.data()}, {k, n, 1, k, 1, 0, bytes});
      for (int t = 0; t < 2; ++t) {
        terms[t].resize((size_t)(columns * k / block + 16));
        call("pack", {(t ? offset : scale).data(), terms[t].data()},
             {k / block, n, 1, k / block, 1, 0, 4});
      }
      call("gemm",
           {a.data(), packed.data(), form > 1 ? terms[0].data() : nullptr,
            form > 2 ? terms[1].data() : nullptr, c.data()},
           {1, m, n, k, 0, k, 0, 0, n, storage, form > 1 ? block : 0, 0});
      report(label("gemm_narrow", {m, n, k}, (int)form), c);
    }
}

// In 16-bit pairs, which every processor has, and in fours where this one multiplies bytes.
void run_bytes() {
  using Bytes = std::vector<int8_t>;
  auto bytes = [](int64_t n, uint64_t seed) {
    Random r{seed + 99};
    Bytes x((size_t)n);
    for (int64_t i = 0; i < n; ++i) {
      const uint64_t u = r.next();
      x[(size_t)i] = (int8_t)(i % 5 ? u : u % 2 ? -128 : 127);
    }
    return x;
  };
  const int64_t shapes[][3] = {{1, 70, 261}, {4, 100, 300}, {5, 17, 127},   {33, 65, 300},
                               {16, 32, 0},  {7, 13, 1},    {97, 200, 1030}};
  for (const auto& s : shapes) {
    const int64_t m = s[0], n = s[1], k = s[2], panel = g_isa->panel;
    const Bytes a = bytes(m * k + 1, 1), b = bytes(k * n + 1, 2);
    int layout = 0;
    for (int64_t group : {(int64_t)2, (int64_t)byte_group(g_isa->isa)}) {
      Words packed((size_t)((n + panel - 1) / panel * panel * (k + 1) + 16)), c((size_t)(m * n), 7);
      call("pack_i8", {b.data(), packed.data()}, {k, n, 1, k, group});
      call("gemm_i8", {a.data(), packed.data(), c.data()}, {m, n, k, group, 0});
      report(label("gemm_i8", {m, n, k}, layout++), c);
    }
  }
  for (int64_t n : {1, 5, 63, 384, 1025})
    for (int kind = 0; kind < 4; ++kind) {
      const int64_t rows = 7;
      const Floats x = floats(rows * n, kind, (uint64_t)n), factor = floats(n, 0, 3);
      Bytes q((size_t)(rows * n));
      Floats step((size_t)rows), middle((size_t)rows);
      for (const void* f : {(const void*)nullptr, (const void*)factor.data()}) {
        call("quantise_rows", {x.data(), f, q.data(), step.data(), middle.data()}, {rows, n});
        Words all(q.begin(), q.end());
        step.insert(step.end(), middle.begin(), middle.end());
        for (float v : step) {
          all.push_back(0);
          std::memcpy(&all.back(), &v, 4);
        }
        step.resize((size_t)rows);
        report(label(f ? "quantise_rows_by" : "quantise_rows", {n}, kind), all);
      }
    }
}

int64_t bits_of(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  return u;
}
