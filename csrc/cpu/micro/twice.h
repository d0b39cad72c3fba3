// Two vectors as one, so that a long chain of operations is two chains that a CPU does side by side.
#pragma once

namespace fastinfer {
namespace {

// What functions of float_rows.h and float_elements.h use of a Vec.
template <class Vec>
struct Twice {
  static constexpr int kLanes = 2 * Vec::kLanes;
  struct Float {
    typename Vec::Float v[2];
  };
  struct Int {
    decltype(Vec::round(Vec::setf(0.0f))) v[2];
  };

  static Float loadf(const float* p) { return {{Vec::loadf(p), Vec::loadf(p + Vec::kLanes)}}; }
  static void storef(float* p, const Float& a) {
    Vec::storef(p, a.v[0]);
    Vec::storef(p + Vec::kLanes, a.v[1]);
  }
  static Float setf(float value) { return {{Vec::setf(value), Vec::setf(value)}}; }
  static Float addf(const Float& a, const Float& b) {
    return {{Vec::addf(a.v[0], b.v[0]), Vec::addf(a.v[1], b.v[1])}};
  }
  static Float subf(const Float& a, const Float& b) {
    return {{Vec::subf(a.v[0], b.v[0]), Vec::subf(a.v[1], b.v[1])}};
  }
  static Float mulf(const Float& a, const Float& b) {
    return {{Vec::mulf(a.v[0], b.v[0]), Vec::mulf(a.v[1], b.v[1])}};
  }
  static Float divf(const Float& a, const Float& b) {
    return {{Vec::divf(a.v[0], b.v[0]), Vec::divf(a.v[1], b.v[1])}};
  }
  static Float minf(const Float& a, const Float& b) {
    return {{Vec::minf(a.v[0], b.v[0]), Vec::minf(a.v[1], b.v[1])}};
  }
  static Float maxf(const Float& a, const Float& b) {
    return {{Vec::maxf(a.v[0], b.v[0]), Vec::maxf(a.v[1], b.v[1])}};
  }
  static Float absf(const Float& a) { return {{Vec::absf(a.v[0]), Vec::absf(a.v[1])}}; }
  static Float if_above(const Float& a, const Float& b, const Float& then, const Float& otherwise) {
    return {{Vec::if_above(a.v[0], b.v[0], then.v[0], otherwise.v[0]),
             Vec::if_above(a.v[1], b.v[1], then.v[1], otherwise.v[1])}};
  }
  static Int round(const Float& a) { return {{Vec::round(a.v[0]), Vec::round(a.v[1])}}; }
  static Float to_float(const Int& a) { return {{Vec::to_float(a.v[0]), Vec::to_float(a.v[1])}}; }
  static Int half32(const Int& a) { return {{Vec::half32(a.v[0]), Vec::half32(a.v[1])}}; }
  static Int sub32(const Int& a, const Int& b) {
    return {{Vec::sub32(a.v[0], b.v[0]), Vec::sub32(a.v[1], b.v[1])}};
  }
  static Float power_of_two(const Int& a) {
    return {{Vec::power_of_two(a.v[0]), Vec::power_of_two(a.v[1])}};
  }
};

}  // namespace
}  // namespace fastinfer
