// Noise and the masks that several passes share. All are functions of the REST position (decimetres on the base mesh), so
// that lips, brows and beards stay where they belong on every morph.
uniform sampler3D noise_texture;  // 64³ periodic cells, four channels about 0.5
uniform sampler2D strand_texture;
uniform float curly;
uniform float frayed;
uniform float trim_height;
uniform vec3 pole;
uniform float beard;
uniform float beard_cheeks;
uniform int shells;

const vec3 SEED = vec3(0.37, 0.71, 0.13);  // constant: a generator can only learn what the parameters determine
const vec3 SKULL_CENTRE = vec3(0.0, 7.35, 0.35);

float value_noise(vec3 cells) { return texture(noise_texture, cells / 64.0).r; }

float fractal_noise(vec3 cells) {
    vec3 p = cells / 64.0;
    return 0.50 * texture(noise_texture, p).r + 0.27 * texture(noise_texture, p * 2.03 + 0.3).g
         + 0.15 * texture(noise_texture, p * 4.1 + 0.7).b + 0.08 * texture(noise_texture, p * 8.3).a;
}

float gauss(vec2 offset, vec2 width) { vec2 q = offset / width; return exp(-dot(q, q)); }

// Place in the strand texture, which repeats: around the pole and away from it, or across and along the strands.
vec2 polar_place(vec3 rest) {
    vec3 d = normalize(rest - SKULL_CENTRE);
    vec3 first = normalize(cross(pole, vec3(1.0, 0.0, 0.01)));
    vec3 second = cross(pole, first);
    return vec2(atan(dot(d, second), dot(d, first) + 1e-5) / 6.2831853, acos(clamp(dot(d, pole), -1.0, 1.0)) / 6.0);
}

// Opacity of hair in [0,1]: strands thin out towards the open edges of the mesh and the outer shells. extra = (across, along,
// distance to the edge, polar flag and gap to the skin); tone: light and dark of the strands, about 0.5; drift: slow noise.
float hair_opacity(vec3 rest, vec4 extra, float shell, out float tone, out float drift) {
    bool polar = extra.w > 0.0;
    vec2 place = polar ? polar_place(rest) : vec2(extra.x / 8.4, -extra.y / 20.0);
    vec4 strand = texture(strand_texture, place);  // tone, thin hairs, locks, ·
    vec4 cells = texture(noise_texture, rest * (7.0 / 64.0) + 0.2);
    drift = cells.g;
    tone = 0.5 + 1.5 * (strand.r - 0.5);
    float thin = clamp(0.5 + 1.6 * (strand.g - 0.5), 0.0, 1.0);
    float locks = strand.b - 0.5;
    if (curly > 0.5) {
        tone = 0.5 + 1.6 * (fractal_noise(rest * 22.0 + SEED * 64.0) - 0.5);
        thin = clamp(0.5 + 1.5 * (value_noise(rest * 30.0) - 0.5), 0.0, 1.0);
        locks = 0.0;
    } else if (polar) {  // around the pole strands would pinch together
        tone = mix(tone, 0.5, 0.7 * smoothstep(0.06, 0.0, place.y));
    }
    // near the skin the edge is a hairline: single fine hairs that fade; away from it, the tips of locks
    float hairline = smoothstep(0.22, 0.06, abs(extra.w) - 1.0);
    float irregular = (0.8 * locks + mix(0.9, 0.35, curly) * (cells.r - 0.5)) * mix(1.0, 0.6, hairline);
    float inside = extra.z / frayed + irregular * 0.8;
    inside = min(inside, (rest.y - trim_height) / 0.30 + 0.7 * irregular);
    float solid = clamp(inside * mix(1.0, 0.85, hairline), 0.0, 1.0);
    float strands = 0.3 * tone + 0.7 * thin;
    // tips end strand by strand, and softly where hair grows out of the skin
    float opacity = solid + (strands - 0.5) * mix(1.2, 0.8, hairline) * (1.25 - solid);
    if (shells > 1) opacity -= shell * 0.72 - (strands - 0.5) * shell * 0.9;
    return smoothstep(0.04, mix(0.82, 1.02, hairline), opacity);
}

float lip_mask(vec3 rest) {
    float t = clamp(abs(rest.x) / 0.245, 0.0, 1.0);
    float bow = (abs(rest.x) - 0.085) / 0.06;
    float upper = 6.608 + (1.0 - t * t) * 0.06 + 0.033 * exp(-bow * bow);
    float lower = 6.612 - 0.135 * sqrt(max(0.0, 1.0 - t * t));
    const float edge = 0.020;
    return smoothstep(upper + edge, upper - edge, rest.y) * smoothstep(lower - edge, lower + edge, rest.y)
         * smoothstep(1.0, 1.2, rest.z) * smoothstep(1.02, 0.93, t);
}

// Where a beard grows, in [0,1]; beard_cheeks raises its line on the cheeks.
float beard_region(vec3 rest) {
    float ax = abs(rest.x);
    vec4 cells = texture(noise_texture, rest * (16.0 / 64.0));
    float rough = 0.6 * cells.r + 0.4 * cells.g - 0.5;
    float jaw = 6.13 + max(0.0, 1.42 - rest.z) * 0.46;
    float cheek = 6.86 - 0.16 * (1.0 - beard_cheeks);
    float region = smoothstep(cheek + 0.24, cheek - 0.26, rest.y - 0.16 * smoothstep(0.45, 0.72, ax) + rough * 0.1);
    region *= smoothstep(-0.18, 0.12, rest.y - jaw + 0.07 + rough * 0.12);
    region *= smoothstep(0.22, 1.05, rest.z + rough * 0.2);
    float beside_mouth = smoothstep(0.10, -0.05, rest.y - 6.62 - (0.45 + 0.3 * beard_cheeks) * max(0.0, ax - 0.24) + rough * 0.15);
    region *= mix(1.0, beside_mouth, smoothstep(0.26, 0.36, ax));
    float moustache = smoothstep(0.02, -0.06, rest.y - 6.80 + 0.55 * max(0.0, ax - 0.12));
    region *= mix(1.0, moustache, smoothstep(0.40, 0.33, ax));
    region *= 1.0 - lip_mask(rest);
    region *= 1.0 - 0.4 * gauss(vec2(rest.x, rest.y - 6.44), vec2(0.06, 0.03));
    return clamp(region, 0.0, 1.0) * smoothstep(0.0, 0.6, region + rough * 0.35);
}

// Light and dark of whiskers, about 0.5: about a pixel thin at 256 px, several long, leaning back on the cheek.
float beard_strands(vec3 rest) {
    float down = rest.y + 0.5 * max(0.0, 1.3 - rest.z);
    vec3 cells = vec3(rest.x * 30.0, down * 9.0, rest.z * 22.0);
    vec3 place = cells / 64.0 + SEED;
    return 0.55 * texture(noise_texture, place).r + 0.45 * texture(noise_texture, place * 2.1 + 0.4).g;
}

// Opacity of a beard's shell: whiskers get fewer with height, and only the thick of the beard reaches the outer shells.
float beard_opacity(vec3 rest, float shell, float hairs, out float region) {
    region = beard_region(rest) * smoothstep(0.0, 0.9, beard);
    float spread = clamp(0.5 + 2.2 * (hairs - 0.5), 0.0, 1.0);
    float keep = region * 1.2 - 0.08 - shell * (1.25 - 0.45 * region) + (spread - 0.5) * (0.42 + 0.5 * shell);
    return smoothstep(0.0, 0.95, keep) * smoothstep(0.02, 0.55, region);
}
