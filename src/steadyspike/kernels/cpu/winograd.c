/* Convolutions of 3 by 3, stride 1, padding 1, by Winograd's F(2x2, 3x3): 16 products of matrices
 * where the direct way takes 36 (Lavin and Gray, 2015).
 *
 *   a tile of the output:  y = At [U . V] A,   U = G g Gt,   V = Bt d B
 *   its weights' gradient: dg = Gt [(A dy At) . V] G
 *
 * with d the tile's 4 by 4 inputs and y its 2 by 2 outputs. The data are only added up, the weights
 * halved: results are as exact as those of a direct convolution in float. Images are (N, H, W, C).
 *
 * Tiles come in blocks whose transforms stay in the second cache, and never reach memory.
 *
 * The same bits everywhere: every product adds up its terms one after the other with fused
 * multiplications, in the order of channels or of tiles; vectors run over other, independent lanes.
 * Sums over tiles are made in parts of a fixed size, which are added in order.
 */

#include "products.h"
#include "tiles.h"
#include "parts.h"

#include <string.h>

/* The transforms are written once for vectors of channels and the channels left over. */
static inline vector get_float(const float *p) { return LOAD(p); }
static inline vector get_uint8_t(const uint8_t *p) { return WIDEN(p); }
#define GET_ONE(p) (float)*(p)
#define PUT_ONE(p, x) *(p) = (x)
#define EACH_CHANNEL(C, BODY, GET) \
    int64_t c = 0; \
    for (; c + LANES <= (C); c += LANES) { BODY(vector, GET, STORE) } \
    for (; c < (C); c++) { BODY(float, GET_ONE, PUT_ONE) }

/* V = Bt d B of C channels of x, which has C_x; V[xi] step apart. */
#define TRANSFORM(NAME, REAL) \
    static void NAME(const REAL *x, int64_t C_x, Tile at, int64_t C, const REAL *none, float *v, \
                     int64_t step) { \
        const REAL *d[16]; \
        for (int i = 0; i < 16; i++) d[i] = at.pixel[i] < 0 ? none : x + at.pixel[i] * C_x; \
        EACH_CHANNEL(C, INPUTS, get_##REAL) \
    }
TRANSFORM(transform, float)
TRANSFORM(transform_bytes, uint8_t)

/* A dy At of C channels of dy, which has C_y. */
static void transform_gradient(const float *dy, int64_t C_y, Tile at, int64_t C, const float *none,
                               float *v, int64_t step) {
    const float *d[4];
    for (int i = 0; i < 4; i++)
        d[i] = at.pixel[INNER[i]] < 0 ? none : dy + at.pixel[INNER[i]] * C_y;
    EACH_CHANNEL(C, GRADIENTS, get_float)
}

/* y = At M A + bias of its C channels; what lies beyond the image goes to nowhere. */
static void transform_back(const float *m, int64_t step, Tile at, int64_t C, const float *bias,
                           float *nowhere, float *y) {
    float *out[4];
    for (int i = 0; i < 4; i++)
        out[i] = at.pixel[INNER[i]] < 0 ? nowhere : y + at.pixel[INNER[i]] * C;
    EACH_CHANNEL(C, OUTPUTS, get_float)
}

int64_t packed_floats(int64_t Ci, int64_t Co) { return 16 * Ci * over(Co, PAD) * PAD; }

/* U = G g Gt of weights g whose element (input, output, row, column) lies where the strides say:
 * packed (16, pieces of COLUMNS outputs, Ci, COLUMNS), zeros where there is no output. */
void pack_weights(const float *g, const int64_t *stride, int64_t Ci, int64_t Co, float *U,
                  int threads) {
    int64_t wide = over(Co, PAD) * PAD, pieces = wide / COLUMNS, deep = over(Ci, LINE);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < pieces * deep; task++) {
        int64_t first = task / deep * COLUMNS, k0 = task % deep * LINE;
        int64_t n = least(COLUMNS, Co - first), depth = least(LINE, Ci - k0);
        float part[9][LINE][COLUMNS];
        if (n < COLUMNS) memset(part, 0, sizeof part);
        for (int i = 0; i < 9; i++) {
            const float *from = g + first * stride[1] + k0 * stride[0] + i / 3 * stride[2] +
                                i % 3 * stride[3];
            if (stride[1] < stride[0]) {
                for (int64_t k = 0; k < depth; k++)
                    for (int64_t j = 0; j < n; j++)
                        part[i][k][j] = from[k * stride[0] + j * stride[1]];
            } else
                for (int64_t j = 0; j < n; j++)
                    for (int64_t k = 0; k < depth; k++)
                        part[i][k][j] = from[k * stride[0] + j * stride[1]];
        }
        for (int64_t k = 0; k < depth; k++)
            for (int64_t j = 0; j < COLUMNS; j += LANES) {
                float *u = U + first * Ci + (k0 + k) * COLUMNS + j;
                vector half = FILL(0.5f), t[3][4];
#define AND_HALVES(to, a, b, c) \
    to[0] = a, to[1] = half * ((a + c) + b), to[2] = half * ((a + c) - b), to[3] = c
#pragma GCC unroll 3
                for (int i = 0; i < 3; i++) {
                    vector p = LOAD(&part[i][k][j]), q = LOAD(&part[3 + i][k][j]),
                           r = LOAD(&part[6 + i][k][j]);
                    AND_HALVES(t[i], p, q, r);
                }
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    vector v[4];
                    AND_HALVES(v, t[0][i], t[1][i], t[2][i]);
#pragma GCC unroll 4
                    for (int l = 0; l < 4; l++) STORE(u + (4 * i + l) * Ci * wide, v[l]);
                }
            }
    }
}

/* Floats of scratch that `convolve` wants for each thread, with blocks of so many tiles. */
int64_t convolve_floats(int64_t Ci, int64_t Co, int64_t block) {
    int64_t in = pitch(Ci), out = pitch(Co);
    return in + 2 * out + 16 * (plane(block, in) + plane(block, out));
}

/* y (N, H, W, Co) = x (N, H, W, Ci) convolved with U of `pack_weights`, + bias (Co,) or NULL. */
void convolve(const float *x, int64_t N, int64_t H, int64_t W, int64_t Ci, int64_t Co,
              const float *U, const float *bias, float *y, float *scratch, int64_t block,
              int threads) {
    Images of = images(N, H, W);
    int64_t tiles = tiles_of(of), in = pitch(Ci), out = pitch(Co), wide = over(Co, PAD) * PAD;
    int64_t v_step = plane(block, in), m_step = plane(block, out);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int64_t first = 0; first < tiles; first += block) {
        float *none = scratch + omp_get_thread_num() * convolve_floats(Ci, Co, block);
        float *nowhere = none + in, *shift = nowhere + out;
        float *V = shift + out, *M = V + 16 * v_step;
        int64_t n = least(block, tiles - first);
        memset(none, 0, in * sizeof(float));
        memset(shift, 0, out * sizeof(float));
        if (bias) memcpy(shift, bias, Co * sizeof(float));
        for (int64_t t = 0; t < n; t++)
            transform(x, Ci, tile_of(of, first + t), Ci, none, V + t * in, v_step);
        for (int xi = 0; xi < 16; xi++)
            for (int64_t j = 0; j < wide; j += COLUMNS)
                for (int64_t t = 0; t < n; t += ROWS)
                    multiply(least(ROWS, n - t), V + xi * v_step + t * in, in,
                             U + (xi * wide + j) * Ci, M + xi * m_step + t * out + j, out, Ci);
        for (int64_t t = 0; t < n; t++)
            transform_back(M + t * out, m_step, tile_of(of, first + t), Co, shift, nowhere, y);
    }
}

int64_t gradient_floats(void) {
    return CHUNK + 16 * (2 * plane(DEEP, CHUNK) + plane(CHUNK, CHUNK));
}

/* Partial sums (parts, 9 Ci + 1, Co) of the gradients of the weights, (3, 3, Ci, Co), and of the
 * bias, (Co,), from x (N, H, W, Ci), floats or bytes, and dy (N, H, W, Co). */
void gradient_parts(const void *x, int bytes, const float *dy, int64_t N, int64_t H, int64_t W,
                    int64_t Ci, int64_t Co, float *parts, float *scratch, int threads) {
    Images of = images(N, H, W);
    int64_t tiles = tiles_of(of), wide = CHUNK, size = bytes ? 1 : sizeof(float);
    int64_t step = plane(DEEP, wide), s_step = plane(CHUNK, wide);
    int64_t ins = over(Ci, CHUNK), outs = over(Co, CHUNK), tasks = over(tiles, PART) * ins * outs;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t i0 = task % ins * CHUNK, o0 = task / ins % outs * CHUNK, p = task / ins / outs;
        int64_t ni = least(CHUNK, Ci - i0), no = least(CHUNK, Co - o0);
        int64_t end = least(tiles, (p + 1) * PART);
        float *none = scratch + omp_get_thread_num() * gradient_floats();
        float *V = none + wide, *Y = V + 16 * step, *S = Y + 16 * step;
        float *part = parts + p * part_floats(Ci, Co), *bias = part + 9 * Ci * Co + o0;
        memset(none, 0, gradient_floats() * sizeof(float));
        if (!i0) memset(bias, 0, no * sizeof(float));
        for (int64_t first = p * PART; first < end; first += DEEP) {
            int64_t n = least(DEEP, end - first);
            for (int64_t t = 0; t < n; t++) {
                Tile at = tile_of(of, first + t);
                Tile soon = tile_of(of, least(first + t + AHEAD, tiles - 1));
                for (int i = 2; i < 16; i += i % 2 ? 3 : 1) /* the left half was there before */
                    fetch(x, soon.pixel[i] * Ci + i0, ni, size);
                for (int i = 0; i < 4; i++) fetch(dy, soon.pixel[INNER[i]] * Co + o0, no, 4);
                float *v = V + t * wide, *w = Y + t * wide;
                if (bytes)
                    transform_bytes((const uint8_t *)x + i0, Ci, at, ni, (const uint8_t *)none, v,
                                    step);
                else
                    transform((const float *)x + i0, Ci, at, ni, none, v, step);
                transform_gradient(dy + o0, Co, at, no, none, w, step);
                if (!i0) /* the middle of A dy At is the sum of the tile */
                    for (int64_t j = 0; j < no; j++) bias[j] += w[5 * step + j];
            }
            for (int xi = 0; xi < 16; xi++)
                for (int64_t j = 0; j < no; j += COLUMNS)
                    for (int64_t i = 0; i < ni; i += ROWS)
                        add_outer(least(ROWS, ni - i), V + xi * step + i, wide, Y + xi * step + j,
                                  wide, S + xi * s_step + i * wide + j, wide, n);
        }
        finish_part(S, s_step, wide, ni, no, Ci, Co, part + i0 * Co + o0);
    }
}
