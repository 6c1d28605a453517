/* Tiles of images and their transforms (see winograd.c). Include after LOAD and the other macros. */
#include <stdint.h>
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
    AHEAD = 4,           /* tiles prefetched ahead */
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

/* Prefetches n values of that size: the hardware does not predict these strides. */
static void fetch(const void *from, int64_t at, int64_t n, int64_t size) {
    for (int64_t i = at * size; at >= 0 && i < (at + n) * size; i += 4 * LINE)
        __builtin_prefetch((const char *)from + i);
}

/* The transforms of channel c, or of the vector of channels from c, of type REAL.
 * V = Bt d B: */
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

/* A dy At: */
#define SPREAD(PUT, i, a, b) \
    PUT(v + (4 * i + 0) * step + c, a); \
    PUT(v + (4 * i + 1) * step + c, a + b); \
    PUT(v + (4 * i + 2) * step + c, a - b); \
    PUT(v + (4 * i + 3) * step + c, -b);
#define GRADIENTS(REAL, GET, PUT) \
    REAL p = GET(d[0] + c), q = GET(d[1] + c), r = GET(d[2] + c), s = GET(d[3] + c); \
    REAL p_r = p + r, q_s = q + s, p_mr = p - r, q_ms = q - s, mr = -r, ms = -s; \
    SPREAD(PUT, 0, p, q) SPREAD(PUT, 1, p_r, q_s) SPREAD(PUT, 2, p_mr, q_ms) SPREAD(PUT, 3, mr, ms)

/* y = At M A + bias: */
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
