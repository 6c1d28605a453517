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
 * Sums over tiles are of parts whose size is fixed, put together in order.
 */
#include "products.h"

#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num(void) { return 0; }
#endif

enum {
    LINE = 16,           /* floats of a cache line */
    PAD = 32,            /* channels are padded to this, a multiple of any COLUMNS */
    CHUNK = 64,          /* channels of either side in a piece of the weights' gradient */
    DEEP = 64,           /* tiles of a block there */
    AHEAD = 4,           /* tiles whose values are asked for before their turn */
    PART = 2048,         /* tiles of a partial sum there */
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t over(int64_t a, int64_t b) { return (a + b - 1) / b; }
/* An odd number of cache lines: neighbours do not fall on each other in the first cache. */
static int64_t pitch(int64_t C) { return over(C, PAD) * PAD + LINE; }
static int64_t plane(int64_t rows, int64_t pitch) { return (rows * pitch / LINE | 1) * LINE; }

/* Images and their tiles. */
typedef struct {
    int64_t N, H, W, down, across; /* tiles of an image, one below the other and side by side */
} Images;

static Images images(int64_t N, int64_t H, int64_t W) {
    return (Images){N, H, W, over(H, 2), over(W, 2)};
}
static int64_t tiles_of(Images of) { return of.N * of.down * of.across; }

/* The pixels of a tile's 4 by 4 inputs, -1 beyond the image; the inner 2 by 2 are its outputs'. */
typedef struct {
    int64_t pixel[16];
} Tile;
static const int INNER[4] = {5, 6, 9, 10};

static Tile tile_of(Images of, int64_t tile) {
    Tile at;
    int64_t n = tile / (of.down * of.across), rest = tile % (of.down * of.across);
    int64_t y = rest / of.across * 2 - 1, x = rest % of.across * 2 - 1;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            int in = y + i >= 0 && y + i < of.H && x + j >= 0 && x + j < of.W;
            at.pixel[4 * i + j] = in ? (n * of.H + y + i) * of.W + x + j : -1;
        }
    return at;
}

/* Asks for n values of that size; their places are apart, which no processor guesses. */
static void fetch(const void *from, int64_t at, int64_t n, int64_t size) {
    for (int64_t i = at * size; at >= 0 && i < (at + n) * size; i += 4 * LINE)
        __builtin_prefetch((const char *)from + i);
}

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
#define INPUTS(REAL, GET, PUT) \
    INPUT(REAL, GET, 0) INPUT(REAL, GET, 1) INPUT(REAL, GET, 2) INPUT(REAL, GET, 3) \
    DIFFERENCES(PUT, 0) DIFFERENCES(PUT, 1) DIFFERENCES(PUT, 2) DIFFERENCES(PUT, 3)
#define INPUT(REAL, GET, j) \
    REAL p##j = GET(d[j] + c), q##j = GET(d[4 + j] + c), r##j = GET(d[8 + j] + c), \
         s##j = GET(d[12 + j] + c); \
    REAL t0##j = p##j - r##j, t1##j = q##j + r##j, t2##j = r##j - q##j, t3##j = q##j - s##j;
#define DIFFERENCES(PUT, i) \
    PUT(v + (4 * i + 0) * step + c, t##i##0 - t##i##2); \
    PUT(v + (4 * i + 1) * step + c, t##i##1 + t##i##2); \
    PUT(v + (4 * i + 2) * step + c, t##i##2 - t##i##1); \
    PUT(v + (4 * i + 3) * step + c, t##i##1 - t##i##3);
TRANSFORM(transform, float)
TRANSFORM(transform_bytes, uint8_t)

/* A dy At of C channels of dy, which has C_y. */
static void transform_gradient(const float *dy, int64_t C_y, Tile at, int64_t C, const float *none,
                               float *v, int64_t step) {
    const float *d[4];
    for (int i = 0; i < 4; i++)
        d[i] = at.pixel[INNER[i]] < 0 ? none : dy + at.pixel[INNER[i]] * C_y;
#define SPREAD(PUT, i, a, b) \
    PUT(v + (4 * i + 0) * step + c, a); \
    PUT(v + (4 * i + 1) * step + c, a + b); \
    PUT(v + (4 * i + 2) * step + c, a - b); \
    PUT(v + (4 * i + 3) * step + c, -b);
#define GRADIENTS(REAL, GET, PUT) \
    REAL p = GET(d[0] + c), q = GET(d[1] + c), r = GET(d[2] + c), s = GET(d[3] + c); \
    REAL p_r = p + r, q_s = q + s, p_mr = p - r, q_ms = q - s, mr = -r, ms = -s; \
    SPREAD(PUT, 0, p, q) SPREAD(PUT, 1, p_r, q_s) SPREAD(PUT, 2, p_mr, q_ms) SPREAD(PUT, 3, mr, ms)
    EACH_CHANNEL(C, GRADIENTS, get_float)
}

/* y = At M A + bias of its C channels; what lies beyond the image goes to nowhere. */
static void transform_back(const float *m, int64_t step, Tile at, int64_t C, const float *bias,
                           float *nowhere, float *y) {
    float *out[4];
    for (int i = 0; i < 4; i++)
        out[i] = at.pixel[INNER[i]] < 0 ? nowhere : y + at.pixel[INNER[i]] * C;
#define PRODUCT(REAL, GET, j) \
    REAL p##j = GET(m + j * step + c), q##j = GET(m + (4 + j) * step + c), \
         r##j = GET(m + (8 + j) * step + c), s##j = GET(m + (12 + j) * step + c); \
    REAL t##j = p##j + q##j + r##j, u##j = q##j - r##j - s##j;
#define OUTPUTS(REAL, GET, PUT) \
    REAL shift = GET(bias + c); \
    PRODUCT(REAL, GET, 0) PRODUCT(REAL, GET, 1) PRODUCT(REAL, GET, 2) PRODUCT(REAL, GET, 3) \
    PUT(out[0] + c, t0 + t1 + t2 + shift); \
    PUT(out[1] + c, t1 - t2 - t3 + shift); \
    PUT(out[2] + c, u0 + u1 + u2 + shift); \
    PUT(out[3] + c, u1 - u2 - u3 + shift);
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

/* Partial sums of the weights' gradient, and floats of scratch for each thread. */
int64_t parts_of(int64_t N, int64_t H, int64_t W) { return over(tiles_of(images(N, H, W)), PART); }
int64_t part_floats(int64_t Ci, int64_t Co) { return (9 * Ci + 1) * Co; }
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
        for (int64_t i = 0; i < ni; i++) { /* Gt S G */
            const float *s = S + i * wide;
            float *to_g = part + (i0 + i) * Co + o0;
#pragma GCC ivdep
            for (int64_t j = 0; j < no; j++) {
#define BACK(a, b, c, d) {(a) + 0.5f * ((b) + (c)), 0.5f * ((b) - (c)), 0.5f * ((b) + (c)) + (d)}
#define SIDE4(l) \
    float t##l[3] = BACK(s[l * s_step + j], s[(4 + l) * s_step + j], s[(8 + l) * s_step + j], \
                         s[(12 + l) * s_step + j]);
                SIDE4(0) SIDE4(1) SIDE4(2) SIDE4(3)
#define ROW(l) \
    { \
        float g[3] = BACK(t0[l], t1[l], t2[l], t3[l]); \
        to_g[(3 * l + 0) * Ci * Co + j] = g[0]; \
        to_g[(3 * l + 1) * Ci * Co + j] = g[1]; \
        to_g[(3 * l + 2) * Ci * Co + j] = g[2]; \
    }
                ROW(0) ROW(1) ROW(2)
            }
        }
    }
}

/* The parts put together, times scale: dg where the strides (input, output, row, column) say, and
 * the bias's gradient (Co,), not scaled. */
void gradient(const float *parts, int64_t count, int64_t Ci, int64_t Co, float scale, float *dg,
              const int64_t *stride, float *bias, int threads) {
    int64_t size = part_floats(Ci, Co);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < over(Ci, LINE); i++) {
        float row[LINE][64];
        for (int64_t rs = 0; rs < 9; rs++)
            for (int64_t o0 = 0; o0 < Co; o0 += 64) {
                int64_t ni = least(LINE, Ci - i * LINE), no = least(64, Co - o0);
                for (int64_t k = 0; k < ni; k++) {
                    const float *from = parts + (rs * Ci + i * LINE + k) * Co + o0;
                    for (int64_t j = 0; j < no; j++) row[k][j] = count ? from[j] : 0;
                    for (int64_t p = 1; p < count; p++)
                        for (int64_t j = 0; j < no; j++) row[k][j] += from[p * size + j];
                }
                for (int64_t j = 0; j < no; j++)
                    for (int64_t k = 0; k < ni; k++)
                        dg[(i * LINE + k) * stride[0] + (o0 + j) * stride[1] + rs / 3 * stride[2] +
                           rs % 3 * stride[3]] = row[k][j] * scale;
            }
    }
    for (int64_t j = 0; j < Co; j++) {
        bias[j] = 0;
        for (int64_t p = 0; p < count; p++) bias[j] += parts[p * size + 9 * Ci * Co + j];
    }
}
