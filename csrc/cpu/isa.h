// Which instruction set the kernels use: the best the CPU has, or a lower one on request.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fastinfer {

// Values are the layout ids of packed weights.
enum class Isa : int32_t { kScalar = 1, kAvx2 = 2, kAvx512 = 3, kAvx512Vnni = 4, kAmx = 5 };

const char* isa_name(Isa isa);
bool cpu_supports(Isa isa);
std::vector<std::string> supported_isas();
Isa current_isa();
// Whether vectors of 64 bytes are added in other units than those that multiply: in AMD's cores. Intel's have two
// units for both.
bool adds_beside_products();
// Throws std::invalid_argument for an unknown name or one this CPU lacks.
void set_isa(const std::string& name);

}  // namespace fastinfer
