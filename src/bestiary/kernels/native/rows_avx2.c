/* The kernels for processors with AVX2, FMA and F16C (Intel from Haswell, AMD from Zen). */
#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#define ISA_AVX2
#define ISA_NAME "AVX2"
#define ISA_TABLE isa_avx2
#include "rows.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
