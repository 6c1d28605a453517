/* The convolutions of winograd.c in bfloat16, on processors that multiply pairs of these.
 *
 * Transforms are of floats; V, U and A dy At are rounded to bfloat16 (a spike's V needs no
 * rounding), products add up in float, and results are rounded once, at the end. Operands hold
 * two neighbours of what is summed over side by side in 32 bits: a pair of channels, or of tiles.
 * Channels of either side are multiples of WIDE.
 */
#include "products.h"
#include "tiles.h"
#include "parts.h"

#include <string.h>

typedef uint16_t bf16;
typedef uint32_t pair;
enum { WIDE = COLUMNS };

static inline vector get_float(const float *p) { return LOAD(p); }
static inline vector get_bf16(const bf16 *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return (vector)_mm512_slli_epi32(wide, 16);
}
static inline void put_bf16(bf16 *p, vector x) {
    _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(x));
}
static inline float one_bf16(bf16 x) {
    union { pair bits; float value; } as = {(pair)x << 16};
    return as.value;
}
/* Pairs of the elements of two vectors. */
static inline void put_pairs(pair *p, vector first, vector second) {
    const __m512i turns = _mm512_add_epi32(
        _mm512_mullo_epi32(_mm512_set1_epi32(0x00010001),
                           _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)),
        _mm512_set1_epi32(0x00100000));
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(second, first);
    _mm512_storeu_si512(p, _mm512_permutexvar_epi16(turns, both));
}

/* c (rows, COLUMNS) = a (rows, K) b (K, COLUMNS), or added to c; K counts pairs. */
static inline __attribute__((always_inline)) void piece_of_pairs(
    int rows, int added, const pair *restrict a, int64_t a_row, int64_t a_k,
    const pair *restrict b, int64_t b_k, float *restrict c, int64_t c_row, int64_t K) {
    vector sums[ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = FILL(0);
    for (int64_t k = 0; k < K; k++, a += a_k, b += b_k) {
        __m512bh left = (__m512bh)_mm512_loadu_si512(b);
        __m512bh right = (__m512bh)_mm512_loadu_si512(b + LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            __m512bh one = (__m512bh)_mm512_set1_epi32(a[r * a_row]);
            sums[r][0] = _mm512_dpbf16_ps(sums[r][0], one, left);
            sums[r][1] = _mm512_dpbf16_ps(sums[r][1], one, right);
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

/* a by rows, b packed. */
static void multiply_pairs(int64_t rows, const pair *a, int64_t a_row, const pair *b, float *c,
                           int64_t c_row, int64_t K) {
#define CASE(n) \
    case n: piece_of_pairs(n, 0, a, a_row, 1, b, COLUMNS, c, c_row, K); break;
    EACH_NUMBER_OF_ROWS(CASE)
#undef CASE
}

/* c += at b, both by rows of one k. */
static void add_outer_pairs(int64_t rows, const pair *a, int64_t a_k, const pair *b, int64_t b_k,
                            float *c, int64_t c_row, int64_t K) {
#define CASE(n) \
    case n: piece_of_pairs(n, 1, a, 1, a_k, b, b_k, c, c_row, K); break;
    EACH_NUMBER_OF_ROWS(CASE)
#undef CASE
}

/* V = Bt d B of C channels of x; V[xi] step apart. */
static void transform(const bf16 *x, Tile at, int64_t C, const bf16 *none, bf16 *v, int64_t step) {
    const bf16 *d[16];
    for (int i = 0; i < 16; i++) d[i] = at.pixel[i] < 0 ? none : x + at.pixel[i] * C;
    for (int64_t c = 0; c < C; c += LANES) { INPUTS(vector, get_bf16, put_bf16) }
}

/* y = At M A + bias of COLUMNS of its C channels; what lies beyond the image goes to nowhere. */
static void transform_back(const float *m, int64_t step, Tile at, int64_t C, const float *bias,
                           bf16 *nowhere, bf16 *y) {
    bf16 *out[4];
    for (int i = 0; i < 4; i++)
        out[i] = at.pixel[INNER[i]] < 0 ? nowhere : y + at.pixel[INNER[i]] * C;
    for (int64_t c = 0; c < COLUMNS; c += LANES) { OUTPUTS(vector, get_float, put_bf16) }
}

int64_t packed_pairs(int64_t Ci, int64_t Co) { return 8 * Ci * Co; }

/* U = G g Gt of weights g whose element (input, output, row, column) lies where the strides say:
 * packed (16, pieces of COLUMNS outputs, pairs of inputs, COLUMNS). */
void pack_weights(const bf16 *g, const int64_t *stride, int64_t Ci, int64_t Co, pair *U,
                  int threads) {
    int64_t pieces = Co / COLUMNS, deep = Ci / LINE, U_step = Ci / 2 * Co;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < pieces * deep; task++) {
        int64_t first = task / deep * COLUMNS, k0 = task % deep * LINE;
        float part[9][LINE][COLUMNS];
        for (int i = 0; i < 9; i++) {
            const bf16 *from = g + first * stride[1] + k0 * stride[0] + i / 3 * stride[2] +
                               i % 3 * stride[3];
            if (stride[1] < stride[0]) {
                for (int64_t k = 0; k < LINE; k++)
                    for (int64_t j = 0; j < COLUMNS; j++)
                        part[i][k][j] = one_bf16(from[k * stride[0] + j * stride[1]]);
            } else
                for (int64_t j = 0; j < COLUMNS; j++)
                    for (int64_t k = 0; k < LINE; k++)
                        part[i][k][j] = one_bf16(from[k * stride[0] + j * stride[1]]);
        }
        for (int64_t k = 0; k < LINE; k += 2)
            for (int64_t j = 0; j < COLUMNS; j += LANES) {
                pair *u = U + first * (Ci / 2) + (k0 + k) / 2 * COLUMNS + j;
                vector half = FILL(0.5f), t[3][4], v[2][16];
#define AND_HALVES(to, a, b, c) \
    to[0] = a, to[1] = half * ((a + c) + b), to[2] = half * ((a + c) - b), to[3] = c
#pragma GCC unroll 2
                for (int l = 0; l < 2; l++) {
#pragma GCC unroll 3
                    for (int i = 0; i < 3; i++) {
                        vector p = LOAD(&part[i][k + l][j]), q = LOAD(&part[3 + i][k + l][j]),
                               r = LOAD(&part[6 + i][k + l][j]);
                        AND_HALVES(t[i], p, q, r);
                    }
#pragma GCC unroll 4
                    for (int i = 0; i < 4; i++) AND_HALVES((v[l] + 4 * i), t[0][i], t[1][i], t[2][i]);
                }
                for (int i = 0; i < 16; i++) put_pairs(u + i * U_step, v[0][i], v[1][i]);
            }
    }
}

/* Floats of scratch that `convolve` wants for each thread, with blocks of so many tiles. */
int64_t convolve_floats(int64_t Ci, int64_t Co, int64_t block) {
    return pitch(Ci) + pitch(Co) + 16 * (plane(block, pitch(Ci / 2)) + plane(block, COLUMNS));
}

/* y (N, H, W, Co) = x (N, H, W, Ci) convolved with U of `pack_weights`, + bias (Co,) or NULL. */
void convolve(const bf16 *x, int64_t N, int64_t H, int64_t W, int64_t Ci, int64_t Co,
              const pair *U, const float *bias, bf16 *y, float *scratch, int64_t block,
              int threads) {
    Images of = images(N, H, W);
    int64_t tiles = tiles_of(of), in = pitch(Ci / 2);
    int64_t v_step = plane(block, in), m_step = plane(block, COLUMNS);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int64_t first = 0; first < tiles; first += block) {
        float *none = scratch + omp_get_thread_num() * convolve_floats(Ci, Co, block);
        float *shift = none + pitch(Ci), *M = shift + pitch(Co);
        pair *V = (pair *)(M + 16 * m_step);
        bf16 nowhere[COLUMNS];
        int64_t n = least(block, tiles - first);
        memset(none, 0, pitch(Ci) * sizeof(float));
        memset(shift, 0, pitch(Co) * sizeof(float));
        if (bias) memcpy(shift, bias, Co * sizeof(float));
        for (int64_t t = 0; t < n; t++)
            transform(x, tile_of(of, first + t), Ci, (const bf16 *)none, (bf16 *)(V + t * in),
                      2 * v_step);
        for (int64_t j = 0; j < Co; j += COLUMNS) {
            for (int xi = 0; xi < 16; xi++)
                for (int64_t t = 0; t < n; t += ROWS)
                    multiply_pairs(least(ROWS, n - t), V + xi * v_step + t * in, in,
                                   U + (xi * Co + j) * (Ci / 2), M + xi * m_step + t * COLUMNS,
                                   COLUMNS, Ci / 2);
            for (int64_t t = 0; t < n; t++)
                transform_back(M + t * COLUMNS, m_step, tile_of(of, first + t), Co, shift + j,
                               nowhere, y + j);
        }
    }
}

/* Of two tiles and a vector of channels, integers of 16 bits side by side. */
static inline __m512i get_two(const uint8_t *first, const uint8_t *second) {
    __m512i low = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)first));
    __m512i high = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)second));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}
/* The same in bfloat16, rounded. */
static inline void put_two(pair *p, __m512i x) {
    put_pairs(p, _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(x, 16), 16)),
              _mm512_cvtepi32_ps(_mm512_srai_epi32(x, 16)));
}
enum { LOOKED_UP = 7 }; /* bytes up to this have a V found in a table, of -32 to 31 */
static void make_table(bf16 *table) {
    for (int i = 0; i < 64; i++) {
        union { float value; pair bits; } as = {i < 32 ? i : i - 64};
        table[i] = as.bits >> 16;
    }
}

/* V = Bt d B of two tiles' integers, found in the table or rounded. */
static inline __attribute__((always_inline)) void transform_integers(
    int found, __m512i low, __m512i high, const __m512i *d, pair *v, int64_t step) {
#define PLUS _mm512_add_epi16
#define MINUS _mm512_sub_epi16
#define PUT_TWO(xi, value) \
    if (found) \
        _mm512_storeu_si512(v + (xi) * step, _mm512_permutex2var_epi16(low, value, high)); \
    else \
        put_two(v + (xi) * step, value)
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512i t[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            __m512i p = d[j], q = d[4 + j], r = d[8 + j], s = d[12 + j];
            t[j] = i == 0 ? MINUS(p, r) : i == 1 ? PLUS(q, r) : i == 2 ? MINUS(r, q) : MINUS(q, s);
        }
        PUT_TWO(4 * i + 0, MINUS(t[0], t[2]));
        PUT_TWO(4 * i + 1, PLUS(t[1], t[2]));
        PUT_TWO(4 * i + 2, MINUS(t[2], t[1]));
        PUT_TWO(4 * i + 3, MINUS(t[1], t[3]));
    }
}

/* Two tiles' V = Bt d B of C channels of x, which has C_x, as pairs; V[xi] step apart. */
static void transform_two(const bf16 *table, const uint8_t *x, int64_t C_x, const Tile *at,
                          int64_t C, const uint8_t *none, pair *v, int64_t step) {
    const uint8_t *from[2][16];
    for (int i = 0; i < 32; i++) {
        int64_t pixel = at[i / 16].pixel[i % 16];
        from[i / 16][i % 16] = pixel < 0 ? none : x + pixel * C_x;
    }
    __m512i low = _mm512_loadu_si512(table), high = _mm512_loadu_si512(table + 32);
    for (int64_t c = 0; c < C; c += LANES) {
        __m512i d[16], any = _mm512_setzero_si512();
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            d[i] = get_two(from[0][i] + c, from[1][i] + c);
            any = _mm512_or_si512(any, d[i]);
        }
        if (!_mm512_test_epi16_mask(any, _mm512_set1_epi16(~LOOKED_UP)))
            transform_integers(1, low, high, d, v + c, step);
        else
            transform_integers(0, low, high, d, v + c, step);
    }
}

/* Two tiles' A dy At of C channels of dy, which has C_y, as pairs, and its sums added to bias. */
static void transform_two_gradients(const bf16 *dy, int64_t C_y, const Tile *at, int64_t C,
                                    const bf16 *none, pair *v, int64_t step, float *bias) {
    const bf16 *from[2][4];
    for (int i = 0; i < 8; i++) {
        int64_t pixel = at[i / 4].pixel[INNER[i % 4]];
        from[i / 4][i % 4] = pixel < 0 ? none : dy + pixel * C_y;
    }
    for (int64_t c = 0; c < C; c += LANES) {
        vector a[2][4], b[2][4];
#pragma GCC unroll 2
        for (int l = 0; l < 2; l++) {
            vector p = get_bf16(from[l][0] + c), q = get_bf16(from[l][1] + c),
                   r = get_bf16(from[l][2] + c), s = get_bf16(from[l][3] + c);
            a[l][0] = p, a[l][1] = p + r, a[l][2] = p - r, a[l][3] = -r;
            b[l][0] = q, b[l][1] = q + s, b[l][2] = q - s, b[l][3] = -s;
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            put_pairs(v + (4 * i + 0) * step + c, a[0][i], a[1][i]);
            put_pairs(v + (4 * i + 1) * step + c, a[0][i] + b[0][i], a[1][i] + b[1][i]);
            put_pairs(v + (4 * i + 2) * step + c, a[0][i] - b[0][i], a[1][i] - b[1][i]);
            put_pairs(v + (4 * i + 3) * step + c, -b[0][i], -b[1][i]);
        }
        if (bias)
            STORE(bias + c, LOAD(bias + c) + ((a[0][1] + b[0][1]) + (a[1][1] + b[1][1])));
    }
}

enum { DEEPER = 128 }; /* tiles of a block of the weights' gradient: even */

/* Floats of scratch that `gradient_parts` wants for each thread, with chunks of so many channels. */
int64_t gradient_floats(int64_t chunk) {
    return chunk + 16 * (2 * plane(DEEPER / 2, chunk) + plane(chunk, chunk));
}

/* Partial sums (parts, 9 Ci + 1, Co) of the gradients of the weights, (3, 3, Ci, Co), and of the
 * bias, (Co,), from x (N, H, W, Ci) in bytes and dy (N, H, W, Co). */
void gradient_parts(const uint8_t *x, const bf16 *dy, int64_t N, int64_t H, int64_t W, int64_t Ci,
                    int64_t Co, float *parts, float *scratch, int64_t chunk, int threads) {
    Images of = images(N, H, W);
    int64_t tiles = tiles_of(of);
    int64_t step = plane(DEEPER / 2, chunk), s_step = plane(chunk, chunk);
    int64_t ins = over(Ci, chunk), outs = over(Co, chunk), tasks = over(tiles, PART) * ins * outs;
    bf16 table[64];
    make_table(table);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t i0 = task % ins * chunk, o0 = task / ins % outs * chunk, p = task / ins / outs;
        int64_t ni = least(chunk, Ci - i0), no = least(chunk, Co - o0);
        int64_t end = least(tiles, (p + 1) * PART);
        float *none = scratch + omp_get_thread_num() * gradient_floats(chunk);
        pair *V = (pair *)(none + chunk), *Y = V + 16 * step;
        float *S = (float *)(Y + 16 * step);
        float *part = parts + p * part_floats(Ci, Co), *bias = part + 9 * Ci * Co + o0;
        memset(none, 0, chunk * sizeof(float));
        memset(S, 0, 16 * s_step * sizeof(float));
        if (!i0) memset(bias, 0, no * sizeof(float));
        for (int64_t first = p * PART; first < end; first += DEEPER) {
            int64_t n = least(DEEPER, end - first);
            for (int64_t t = 0; t < n; t += 2) {
                Tile at[2] = {tile_of(of, first + t)};
                if (t + 1 < n)
                    at[1] = tile_of(of, first + t + 1);
                else
                    for (int i = 0; i < 16; i++) at[1].pixel[i] = -1;
                for (int l = 0; l < 2; l++) {
                    Tile soon = tile_of(of, least(first + t + l + AHEAD, tiles - 1));
                    for (int i = 2; i < 16; i += i % 2 ? 3 : 1) /* the left half was there before */
                        fetch(x, soon.pixel[i] * Ci + i0, ni, 1);
                    for (int i = 0; i < 4; i++) fetch(dy, soon.pixel[INNER[i]] * Co + o0, no, 2);
                }
                transform_two(table, x + i0, Ci, at, ni, (const uint8_t *)none, V + t / 2 * chunk,
                              step);
                transform_two_gradients(dy + o0, Co, at, no, (const bf16 *)none, Y + t / 2 * chunk,
                                        step, i0 ? 0 : bias);
            }
            for (int xi = 0; xi < 16; xi++)
                for (int64_t j = 0; j < no; j += COLUMNS)
                    for (int64_t i = 0; i < ni; i += ROWS)
                        add_outer_pairs(least(ROWS, ni - i), V + xi * step + i, chunk,
                                        Y + xi * step + j, chunk, S + xi * s_step + i * chunk + j,
                                        chunk, over(n, 2));
        }
        finish_part(S, s_step, chunk, ni, no, Ci, Co, part + i0 * Co + o0);
    }
}
