// What a GPU does here besides matrix products: one pass over memory for each of these.
//
// Nothing is fused but what rounds as its parts do: compiled without fused multiply-adds, every
// operation is one of IEEE 754, as the array functions of kernels.py are. Images are (G, N, H, W, C).
//
// A block of threads has one row of an image (or, where there are no images, a run of numbers). The
// order of sums is that of kernels.py.

typedef unsigned long long Bits;

// Whole numbers n < 2^31 divided by one that does not change, without a division: Granlund and
// Montgomery 1994, "Division by invariant integers using multiplication", figure 4.1.
struct Divisor {
    unsigned by, magic, shift;
    __device__ unsigned quotient(unsigned n) const { return (__umulhi(n, magic) + n) >> shift; }
};

// Of windows; see device.images. Channels C = groups * per_group, a window's elements and channels
// of one group K = kh * kw * per_group.
struct Geometry {
    int n, h, w, oh, ow, kh, kw, top, left, lower, further, groups, channels;
    Divisor down, right, per_group, per_row, per_element, by_channels;  // strides, CG, KW, K, C
};

template <typename T>
__device__ T pixel(const T* image, int y, int column, int channel, const Geometry& g, T margin) {
    if (y < 0 || y >= g.h || column < 0 || column >= g.w) return margin;
    return image[(y * g.w + column) * g.channels + channel];
}

// (G, N, H, W, C) unrolled: (G, R, N OH OW, KH KW CG). One block: a row of windows.
template <typename T>
__global__ void windows(const T* x, T* out, Geometry g) {
    long long number = blockIdx.x / g.oh, batch = number / g.n;
    int oy = blockIdx.x % g.oh, size = g.per_element.by;
    const T* image = x + number * g.h * g.w * g.channels;
    long long rows = (long long)g.n * g.oh * g.ow;  // of one group
    T* first = out + (batch * g.groups * rows + (long long)(number % g.n * g.oh + oy) * g.ow) * size;
    for (int group = 0; group < g.groups; group++)
        for (int i = threadIdx.x; i < g.ow * size; i += blockDim.x) {
            int ox = g.per_element.quotient(i), k = i - ox * size;
            int element = g.per_group.quotient(k), inner = k - element * g.per_group.by;
            int a = g.per_row.quotient(element), b = element - a * g.kw;
            int y = oy * g.down.by + a * g.lower - g.top, column = ox * g.right.by + b * g.further - g.left;
            int channel = group * g.per_group.by + inner;
            first[group * rows * size + i] = pixel(image, y, column, channel, g, (T)0);
        }
}

// Along one axis: which window has pixel `at` as its element `i`; -1 if none has.
__device__ int window_of(int at, int pad, int i, int dilation, const Divisor& stride, int count) {
    int from = at + pad - i * dilation;
    if (from < 0) return -1;
    int window = stride.quotient(from);
    return window * stride.by == from && window < count ? window : -1;
}

// The way back: each pixel is the sum of the elements that were taken from it, in row order.
template <typename T>
__global__ void folded(const T* x, T* out, Geometry g) {
    long long number = blockIdx.x / g.h, batch = number / g.n;
    int y = blockIdx.x % g.h, size = g.per_element.by;
    long long rows = (long long)g.n * g.oh * g.ow;
    const T* windows = x + (batch * g.groups * rows + (long long)(number % g.n) * g.oh * g.ow) * size;
    T* row = out + (number * g.h + y) * g.w * g.channels;
    for (int i = threadIdx.x; i < g.w * g.channels; i += blockDim.x) {
        int column = g.by_channels.quotient(i), channel = i - column * g.channels;
        int group = g.per_group.quotient(channel), inner = channel - group * g.per_group.by;
        const T* own = windows + group * rows * size + inner;
        T sum = 0;
        for (int a = 0; a < g.kh; a++) {
            int oy = window_of(y, g.top, a, g.lower, g.down, g.oh);
            if (oy < 0) continue;
            for (int b = 0; b < g.kw; b++) {
                int ox = window_of(column, g.left, b, g.further, g.right, g.ow);
                if (ox < 0) continue;
                long long window = oy * g.ow + ox;
                sum += own[window * size + (a * g.kw + b) * g.per_group.by];
            }
        }
        row[i] = sum;
    }
}

// first: (OH, OW), which element of each window is its first pixel.
template <typename T>
__global__ void max_pool(const T* x, const int* first, T* out, int* chosen, Geometry g, T lowest) {
    long long number = blockIdx.x / g.oh;
    int oy = blockIdx.x % g.oh;
    const T* image = x + number * g.h * g.w * g.channels;
    long long row = (number * g.oh + oy) * g.ow * g.channels;
    for (int i = threadIdx.x; i < g.ow * g.channels; i += blockDim.x) {
        int ox = g.by_channels.quotient(i), channel = i - ox * g.channels;
        int best = first[oy * g.ow + ox], k = 0;
        T largest = lowest;
        for (int a = 0; a < g.kh; a++)
            for (int b = 0; b < g.kw; b++, k++) {
                int y = oy * g.down.by + a - g.top, column = ox * g.right.by + b - g.left;
                T element = pixel(image, y, column, channel, g, lowest);
                if (k && element > largest) best = k;
                if (!k || element > largest || element != element) largest = element;
            }
        out[row + i] = largest;
        chosen[row + i] = best;
    }
}

template <typename T>
__global__ void max_unpool(const T* dy, const int* chosen, T* out, Geometry g) {
    long long number = blockIdx.x / g.h, start = number * g.oh * g.ow * g.channels;
    int y = blockIdx.x % g.h;
    T* row = out + (number * g.h + y) * g.w * g.channels;
    for (int i = threadIdx.x; i < g.w * g.channels; i += blockDim.x) {
        int column = g.by_channels.quotient(i), channel = i - column * g.channels;
        T sum = 0;
        for (int a = 0; a < g.kh; a++) {
            int oy = window_of(y, g.top, a, 1, g.down, g.oh);
            if (oy < 0) continue;
            for (int b = 0; b < g.kw; b++) {
                int ox = window_of(column, g.left, b, 1, g.right, g.ow);
                if (ox < 0) continue;
                long long at = start + (oy * g.ow + ox) * g.channels + channel;
                sum += dy[at] * (T)(chosen[at] == a * g.kw + b);
            }
        }
        row[i] = sum;
    }
}

// (G, cuts, P, C) to (G, cuts, C): a block has `width` columns, and as many rows at a time as fit.
template <typename T, typename A>
__global__ void sum_rows(const T* x, A* out, int rows, int columns, int width) {
    __shared__ A sums[256];
    int lane = threadIdx.x / width, lanes = blockDim.x / width;
    int column = blockIdx.x * width + threadIdx.x % width;
    const T* own = x + (long long)blockIdx.y * rows * columns;
    A sum = 0;
    if (column < columns)
        for (int row = lane; row < rows; row += lanes) sum += own[(long long)row * columns + column];
    sums[threadIdx.x] = sum;
    for (int half = lanes / 2; half; half /= 2) {
        __syncthreads();
        if (lane < half) sums[threadIdx.x] = sums[threadIdx.x] + sums[threadIdx.x + half * width];
    }
    if (!lane && column < columns) out[(long long)blockIdx.y * columns + column] = sums[threadIdx.x];
}

// Of images (S, C, H, W) those with some numbers, moved: (images, H, W, C). A block: one image.
// places: (images, 3), its number, and how far it is moved down and to the right.
template <typename T>
__global__ void gather(const T* x, const int* places, T* out, int channels, int h, int w) {
    const int* place = places + 3 * (long long)blockIdx.x;
    int size = channels * h * w, down = place[1], right = place[2];
    const T* image = x + (long long)place[0] * size;
    T* moved = out + (long long)blockIdx.x * size;
    for (int i = threadIdx.x; i < size; i += blockDim.x) {
        int channel = i % channels, pixel = i / channels;
        int row = pixel / w - down, column = pixel % w - right;
        bool is_inside = row >= 0 && row < h && column >= 0 && column < w;
        moved[i] = is_inside ? image[(channel * h + row) * w + column] : (T)0;
    }
}

// (G, P, C) to (G, words, C), the rows of each word added up in their order. A block: one word of
// one micro-batch.
template <typename T>
__global__ void sum_by_word(const T* x, const int* words, T* out, int rows, int columns) {
    long long first = (long long)blockIdx.y * rows;
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        T sum = 0;
        for (int row = 0; row < rows; row++)
            if (words[first + row] == blockIdx.x) sum += x[(first + row) * columns + column];
        out[((long long)blockIdx.y * gridDim.x + blockIdx.x) * columns + column] = sum;
    }
}

template <typename T>
__global__ void relu_backward(const T* dy, const T* y, T* out, long long size) {
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step)
        out[i] = dy[i] * (T)(y[i] > 0);
}

// The largest magnitude of each of gridDim.y runs of `size` numbers, one for each block, as bits of
// a double: whole numbers in the order of the magnitudes, a NaN above all.
template <typename T>
__global__ void largest(const T* x, Bits* out, long long size) {
    __shared__ Bits of_warps[8];
    const T* own = x + blockIdx.y * size;
    Bits most = 0;
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
        Bits bits = __double_as_longlong(fabs((double)own[i]));
        if (bits > most) most = bits;
    }
    for (int offset = 16; offset; offset /= 2) {
        Bits other = __shfl_down_sync(0xffffffff, most, offset);
        if (other > most) most = other;
    }
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = most;
    __syncthreads();
    if (threadIdx.x) return;
    for (int warp = 1; warp < blockDim.x / 32; warp++)
        if (of_warps[warp] > most) most = of_warps[warp];
    out[blockIdx.y * gridDim.x + blockIdx.x] = most;
}

// (G, parts) to (G,), a warp each.
__device__ Bits largest_of(const Bits* parts, int count) {
    Bits most = 0;
    for (int i = threadIdx.x; i < count; i += 32)
        if (parts[i] > most) most = parts[i];
    for (int offset = 16; offset; offset /= 2) {
        Bits other = __shfl_xor_sync(0xffffffff, most, offset);
        if (other > most) most = other;
    }
    return most;
}

__global__ void join_largest(const Bits* parts, double* out, int count) {
    Bits most = largest_of(parts + blockIdx.x * count, count);
    if (!threadIdx.x) out[blockIdx.x] = __longlong_as_double(most);
}

__device__ int exponent_of(double x) {  // as NumPy's frexp has it
    int exponent = 0;
    if (isfinite(x)) frexp(x, &exponent);
    return exponent;
}

__device__ double unit_of(double most, int bits, int lowest) {
    return ldexp(1.0, max(exponent_of(most), lowest) - bits);
}

__global__ void units(const Bits* parts, double* out, int count, int bits, int lowest) {
    Bits most = largest_of(parts + blockIdx.x * count, count);
    if (!threadIdx.x) out[blockIdx.x] = unit_of(__longlong_as_double(most), bits, lowest);
}

__device__ double on_grid(double x, double unit) {
    double shift = unit * 6755399441055744.0;  // 1.5 * 2^52
    return (x + shift) - shift;
}

// Runs of `size` numbers, one unit for each; num_units: 1 if all have the same.
template <typename T>
__global__ void to_grid(const T* x, const double* unit, double* out, long long size, int num_units) {
    double own = unit[num_units == 1 ? 0 : blockIdx.y];
    long long step = (long long)gridDim.x * blockDim.x, start = blockIdx.y * size;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step)
        out[start + i] = on_grid(x[start + i], own);
}

// Of (G, size) gradients the sum over G in fixed point, whole numbers of 1 / scale.
template <typename T>
__global__ void sum_of_units(const T* x, long long* out, long long size, int groups, double scale) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    long long sum = 0;
    for (int g = 0; g < groups; g++) sum += (long long)rint((double)x[g * size + i] * scale);
    out[i] = sum;
}

template <typename T>
__global__ void from_units(const long long* units, T* out, long long size, T unit) {
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step)
        out[i] = (T)units[i] * unit;
}

// base.elementary, operation by operation.
__device__ double reduced(double x, int* exponent) {  // e^r - 1 for x = k ln 2 + r
    const double inverse[] = {INVERSE_FACTORIALS};
    double r = x != x ? x : fmin(fmax(x, -700.0), 710.0);
    double k = rint(r * 1.4426950408889634);
    r = r - k * 0.6931471803691238;
    r = r - k * 1.9082149292705877e-10;
    double p = inverse[13];
    for (int n = 12; n > 0; n--) p = p * r + inverse[n];
    *exponent = k != k ? 0 : (int)k;
    return p * r;
}

__device__ double portable_exp(double x) {
    int k;
    double p = reduced(x, &k);
    return ldexp(p + 1.0, k);
}

__device__ double portable_log(double x) {
    const double odd[] = {ODD_INVERSES};
    if (x == 0) return -__longlong_as_double(0x7ff0000000000000);  // infinity
    int e;
    double m = frexp(x, &e);
    if (m < 0.7071067811865476) { m = m + m; e = e - 1; }
    double f = (m - 1.0) / (m + 1.0), square = f * f, p = odd[11];
    for (int n = 10; n >= 0; n--) p = p * square + odd[n];
    p = p * f * 2.0;
    return e * 0.6931471803691238 + (e * 1.9082149292705877e-10 + p);
}

__device__ double exp_of(double x) { return portable_exp(x); }
__device__ float exp_of(float x) { return expf(x); }
__device__ double log_of(double x) { return portable_log(x); }
__device__ float log_of(float x) { return logf(x); }

// Over all threads of a block, whichever order: of magnitudes, or of numbers on a grid.
__device__ double largest_of_block(double x) {
    __shared__ Bits most;
    if (!threadIdx.x) most = 0;
    __syncthreads();
    atomicMax(&most, (Bits)__double_as_longlong(fabs(x)));
    __syncthreads();
    double result = __longlong_as_double(most);
    __syncthreads();
    return result;
}

__device__ double sum_of_block(double x) {
    __shared__ double terms[1024];
    terms[threadIdx.x] = x;
    __syncthreads();
    for (int half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half) terms[threadIdx.x] = terms[threadIdx.x] + terms[threadIdx.x + half];
        __syncthreads();
    }
    double result = terms[0];
    __syncthreads();
    return result;
}

// Softmax and cross-entropy of G micro-batches of n rows, a block each; see nn.losses.
// sums: (G, 2), the loss before it is divided, and how many rows have their largest logit at the
// label. dx: (G, n, classes), the gradient of the loss divided by *divisor.
struct Loss {
    int n, classes, bits_of_classes, bits_of_rows, lowest, rounds;
    double smoothing;
};

template <typename T>
__device__ T sum_of_row(const T* row, double unit, const Loss& o) {
    T sum = 0;
    for (int c = 0; c < o.classes; c++) sum += o.rounds ? (T)on_grid(row[c], unit) : row[c];
    return sum;
}

template <typename T>
__device__ double loss_of(const T* log_p, int label, double weight, double unit, const Loss& o) {
    T loss = -log_p[label];
    if (o.smoothing) {
        T mean = sum_of_row(log_p, unit, o) / (T)o.classes;
        loss = (T)(1 - o.smoothing) * loss - (T)o.smoothing * mean;
    }
    return (double)loss * weight;
}

template <typename T>
__global__ void __launch_bounds__(1024) cross_entropy(const T* x, const int* labels, const double* weights, const double* divisor,
                              T* dx, double* sums, Loss o) {
    long long start = (long long)blockIdx.x * o.n;
    double most = 0, correct = 0;
    for (int i = threadIdx.x; i < o.n; i += blockDim.x) {
        const T* in = x + (start + i) * o.classes;
        T* log_p = dx + (start + i) * o.classes;
        int best = 0;
        for (int c = 1; c < o.classes; c++)
            if (in[c] > in[best] || (in[c] != in[c] && in[best] == in[best])) best = c;
        for (int c = 0; c < o.classes; c++) log_p[c] = exp_of(in[c] - in[best]);
        T log_sum = log_of(sum_of_row(log_p, unit_of(1.0, o.bits_of_classes, o.lowest), o));
        for (int c = 0; c < o.classes; c++) {
            log_p[c] = (in[c] - in[best]) - log_sum;
            most = fmax(most, fabs((double)log_p[c]));
        }
        correct += best == labels[start + i];
    }
    double unit = unit_of(largest_of_block(most), o.bits_of_classes, o.lowest), losses_unit = 0, total = 0;
    for (int pass = 0; pass < 2; pass++) {  // how large the losses are, then their sum
        most = 0;
        for (int i = threadIdx.x; i < o.n; i += blockDim.x) {
            int label = labels[start + i];
            double weight = weights ? weights[label] : 1;
            double loss = loss_of(dx + (start + i) * o.classes, label, weight, unit, o);
            most = fmax(most, fabs(loss));
            if (pass) total += o.rounds ? on_grid(loss, losses_unit) : loss;
        }
        losses_unit = unit_of(largest_of_block(most), o.bits_of_rows, o.lowest);
    }
    total = sum_of_block(total);
    correct = sum_of_block(correct);
    if (!threadIdx.x) {
        sums[2 * blockIdx.x] = total;
        sums[2 * blockIdx.x + 1] = correct;
    }
    for (int i = threadIdx.x; i < o.n; i += blockDim.x) {
        T* row = dx + (start + i) * o.classes;
        int label = labels[start + i];
        for (int c = 0; c < o.classes; c++) {
            T p = exp_of(row[c]);
            if (c == label) p = p - (T)(1 - o.smoothing);
            if (o.smoothing) p = p - (T)(o.smoothing / o.classes);
            if (weights) p = p * (T)weights[label];
            row[c] = p * (T)(1 / *divisor);
        }
    }
}
