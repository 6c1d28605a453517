/* Products of matrices, ROWS by COLUMNS of the result in registers at a time.
 *
 * Each element adds up its terms one after the other with fused multiplications, whatever the width
 * of the vectors: these are over other, independent elements.
 */
#include <immintrin.h>
#include <stdint.h>

#ifdef __AVX512F__
typedef __m512 vector;
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define FILL _mm512_set1_ps
#define WIDEN(p) \
    _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(p))))
#define FUSED _mm512_fmadd_ps
enum { LANES = 16, ROWS = 14, COLUMNS = 2 * LANES };
#else
typedef __m256 vector;
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define FILL _mm256_set1_ps
#define WIDEN(p) _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p))))
#define FUSED _mm256_fmadd_ps
enum { LANES = 8, ROWS = 6, COLUMNS = 2 * LANES };
#endif

/* c (rows, COLUMNS) = a (rows, K) b (K, COLUMNS), or added to c. */
static inline __attribute__((always_inline)) void piece(
    int rows, int added, const float *restrict a, int64_t a_row, int64_t a_k,
    const float *restrict b, int64_t b_k, float *restrict c, int64_t c_row, int64_t K) {
    vector sums[ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        sums[r][0] = sums[r][1] = FILL(0);
    }
    for (int64_t k = 0; k < K; k++, a += a_k, b += b_k) {
        vector left = LOAD(b), right = LOAD(b + LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            vector one = FILL(a[r * a_row]);
            sums[r][0] = FUSED(one, left, sums[r][0]);
            sums[r][1] = FUSED(one, right, sums[r][1]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        float *to = c + r * c_row;
#pragma GCC unroll 2
        for (int side = 0; side < 2; side++, to += LANES)
            STORE(to, added ? (vector)(LOAD(to) + sums[r][side]) : sums[r][side]);
    }
}

#define EACH_NUMBER_OF_ROWS(CASE) \
    switch (rows) { \
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) \
        MORE_ROWS(CASE) \
    }
#ifdef __AVX512F__
#define MORE_ROWS(CASE) \
    CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
#else
#define MORE_ROWS(CASE)
#endif

/* a by rows, b packed. */
static void multiply(int64_t rows, const float *a, int64_t a_row, const float *b, float *c,
                     int64_t c_row, int64_t K) {
#define CASE(n) \
    case n: piece(n, 0, a, a_row, 1, b, COLUMNS, c, c_row, K); break;
    EACH_NUMBER_OF_ROWS(CASE)
#undef CASE
}

/* c += at b, both by rows of one k. */
static void add_outer(int64_t rows, const float *a, int64_t a_k, const float *b, int64_t b_k,
                      float *c, int64_t c_row, int64_t K) {
#define CASE(n) \
    case n: piece(n, 1, a, 1, a_k, b, b_k, c, c_row, K); break;
    EACH_NUMBER_OF_ROWS(CASE)
#undef CASE
}
