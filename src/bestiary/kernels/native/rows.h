/* From groups to rows, for every format. Included once by each instruction set's file, which names its table with
 * ISA_TABLE and ISA_NAME.
 */
#include "groups.h"
#include "native.h"
#include "tile.h"
#include "vector.h"

/* Elements in a strip of rows, and how many bytes ahead weights are asked for: of 1, 2, 4 and 8 KiB, 4 was the fastest
 * (Sapphire Rapids, Q4_1 from memory: 16 billion weights a second against 11 to 14). */
enum { STRIP = 4096, AHEAD = 4096 };
/* From so many vectors on, decoding to memory and tile.h beat decoding to registers for each few of them. */
enum { MANY = 5 };

#define F q4_0
#define BLOCK 32
#define BYTES 18
#include "row.h"

#define F q4_1
#define BLOCK 32
#define BYTES 20
#include "row.h"

#define F q5_0
#define BLOCK 32
#define BYTES 22
#include "row.h"

#define F q5_1
#define BLOCK 32
#define BYTES 24
#include "row.h"

#define F q8_0
#define BLOCK 32
#define BYTES 34
#include "row.h"

#define F iq4_nl
#define BLOCK 32
#define BYTES 18
#include "row.h"

#define F q2_k
#define BLOCK 256
#define BYTES 84
#include "row.h"

#define F q3_k
#define BLOCK 256
#define BYTES 110
#include "row.h"

#define F q4_k
#define BLOCK 256
#define BYTES 144
#include "row.h"

#define F q5_k
#define BLOCK 256
#define BYTES 176
#include "row.h"

#define F q6_k
#define BLOCK 256
#define BYTES 210
#include "row.h"

#define F iq4_xs
#define BLOCK 256
#define BYTES 136
#include "row.h"

/* A function, so that the template can name it: v_load wants aligned floats by its type. */
INLINE v16 v_singles(const uint8_t *p) {
    float f[16];
    memcpy(f, p, sizeof f);
    return v_load(f);
}

#define F f32
#define BYTES 4
#define LOAD v_singles
#include "row_floats.h"

#define F f16
#define BYTES 2
#define LOAD v_halves
#include "row_floats.h"

#define F bf16
#define BYTES 2
#define LOAD v_bfloats
#include "row_floats.h"

#define ENTRY(NAME, F, BLOCK, BYTES) {NAME, BLOCK, BYTES, F##_decode, F##_dot}

const isa ISA_TABLE = {
    ISA_NAME,
    rms_norm,
    swiglu,
    attend,
    {
        ENTRY("F32", f32, 1, 4),
        ENTRY("F16", f16, 1, 2),
        ENTRY("BF16", bf16, 1, 2),
        ENTRY("Q4_0", q4_0, 32, 18),
        ENTRY("Q4_1", q4_1, 32, 20),
        ENTRY("Q5_0", q5_0, 32, 22),
        ENTRY("Q5_1", q5_1, 32, 24),
        ENTRY("Q8_0", q8_0, 32, 34),
        ENTRY("Q2_K", q2_k, 256, 84),
        ENTRY("Q3_K", q3_k, 256, 110),
        ENTRY("Q4_K", q4_k, 256, 144),
        ENTRY("Q5_K", q5_k, 256, 176),
        ENTRY("Q6_K", q6_k, 256, 210),
        ENTRY("IQ4_NL", iq4_nl, 32, 18),
        ENTRY("IQ4_XS", iq4_xs, 256, 136),
    },
};
