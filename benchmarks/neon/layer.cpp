// Every name of one vector layer on many operands, as bits. Compiled once per layer, REE_LAYER
// being its header.
#include REE_LAYER

#include <cstring>
#include <vector>

namespace ree::REE_ISA {
namespace {

struct Out {
  std::vector<uint32_t>& words;
  // in lane order, so that the number of lanes is invisible
  void put(I x) {
    uint32_t w[W];
    std::memcpy(w, &x, sizeof w);
    words.insert(words.end(), w, w + W);
  }
  void put(M m) { put(select(m, set1i(1), set1i(0))); }
  void put(F x) {  // which NaN an operation makes is left open, until it is stored
    put(select(ne(x, x), set1i(0x7fc00000u), bits(x)));
  }
};

// `fn` on the whole of the operands before the next function is tried
template <class Fn>
void each(const std::vector<uint32_t>& a, const std::vector<uint32_t>& b,
          const std::vector<uint32_t>& c, Out out, Fn fn) {
  for (size_t i = 0; i + W <= a.size(); i += W) {
    I x, y, z;
    std::memcpy(&x, &a[i], sizeof x);
    std::memcpy(&y, &b[i], sizeof y);
    std::memcpy(&z, &c[i], sizeof z);
    fn(out, x, y, z);
  }
}

}  // namespace

void layer(const std::vector<uint32_t>& a, const std::vector<uint32_t>& b,
           const std::vector<uint32_t>& c, std::vector<uint32_t>& words) {
  alignas(64) static const uint32_t table[16] = {3,  1,  4,  1,  5,  9,  2,  6,
                                                 53, 58, 97, 93, 23, 84, 62, 64};
#define REE_LAYER_EACH(expression)                                                 \
  each(a, b, c, Out{words}, [](Out out, I i, I j, I k) {                           \
    [[maybe_unused]] const F x = from_bits(i), y = from_bits(j), z = from_bits(k); \
    out.put(expression);                                                           \
  });
  REE_LAYER_EACH(add(x, y))
  REE_LAYER_EACH(sub(x, y))
  REE_LAYER_EACH(mul(x, y))
  REE_LAYER_EACH(div(x, y))
  REE_LAYER_EACH(bits(neg(x)))
  REE_LAYER_EACH(bits(abs(x)))
  REE_LAYER_EACH(sqrt(x))
  REE_LAYER_EACH(sqrt(abs(x)))
  REE_LAYER_EACH(fma(x, y, z))
  REE_LAYER_EACH(fma(x, y, neg(mul(x, y))))
  REE_LAYER_EACH(add(mul(x, y), z))
  REE_LAYER_EACH(rint(x))
  REE_LAYER_EACH(i2f(i))
  REE_LAYER_EACH(u2f(i))
  REE_LAYER_EACH(f2i(x))
  REE_LAYER_EACH(addi(i, j))
  REE_LAYER_EACH(subi(i, j))
  REE_LAYER_EACH(andi(i, j))
  REE_LAYER_EACH(ori(i, j))
  REE_LAYER_EACH(xori(i, j))
  REE_LAYER_EACH(shl(i, 5))
  REE_LAYER_EACH(shr(i, 5))
  REE_LAYER_EACH(sar(i, 5))
  REE_LAYER_EACH(shlv(i, andi(j, set1i(31))))
  REE_LAYER_EACH(shrv(i, andi(j, set1i(31))))
  REE_LAYER_EACH(sarv(i, andi(j, set1i(31))))
  REE_LAYER_EACH(mullo(i, j))
  REE_LAYER_EACH(mulhi(i, j))
  REE_LAYER_EACH(dot_pairs(k, i, j))
  REE_LAYER_EACH(lt(x, y))
  REE_LAYER_EACH(le(x, y))
  REE_LAYER_EACH(eq(x, y))
  REE_LAYER_EACH(ne(x, y))
  REE_LAYER_EACH(lti(i, j))
  REE_LAYER_EACH(lei(i, j))
  REE_LAYER_EACH(ltu(i, j))
  REE_LAYER_EACH(leu(i, j))
  REE_LAYER_EACH(eqi(i, j))
  REE_LAYER_EACH(nei(i, j))
  REE_LAYER_EACH(select(and_m(lt(x, y), not_m(eqi(i, k))), i, j))
  REE_LAYER_EACH(select(or_m(lt(x, y), lti(i, k)), x, y))
  REE_LAYER_EACH(select(xor_m(lt(x, y), lti(i, k)), lt(y, z), set1m(true)))
  REE_LAYER_EACH(bits(lesser(x, y)))
  REE_LAYER_EACH(bits(greater(x, y)))
  REE_LAYER_EACH(bits(maximum(x, y)))
  REE_LAYER_EACH(bits(minimum(x, y)))
  REE_LAYER_EACH(lookup16(table, i))
  REE_LAYER_EACH(lookup(table, shr(i, 28)))
  REE_LAYER_EACH(rotr<7>(i))
  REE_LAYER_EACH(xor3(i, j, k))
  REE_LAYER_EACH(choose(i, j, k))
  REE_LAYER_EACH(majority(i, j, k))
#undef REE_LAYER_EACH
}

}  // namespace ree::REE_ISA
