/* The kernels for processors with AVX-512 (Intel from Skylake-SP, AMD from Zen 4). */
#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#endif
#define ISA_AVX512
#define ISA_NAME "AVX-512"
#define ISA_TABLE isa_avx512
#include "rows.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
