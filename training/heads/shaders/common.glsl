// Noise and the masks that several passes share. All are functions of the REST position (decimetres on the base mesh), so
// that lips, brows and beards stay where they belong on every morph.
uniform sampler3D noise_texture;  // 64³ periodic cells, four channels about 0.5
uniform sampler2D strand_texture;
uniform float curly;
uniform float frayed;
uniform float trim_height;
uniform vec3 pole;
uniform float receding;      // 0: all hair, 1: only a wreath
uniform float fringe_height; // below it hair before the face is cut, decimetres
uniform float ears_free;     // 1: hair is cut around the ears
uniform float wave;
uniform float hat_low, hat_high;  // what a cap or headband covers, by hat_height
uniform float fur_hair;      // 1: hair as shells on the scalp itself
uniform vec3 hair, grey_hair;
uniform float grey;
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

// How far inside the bald part of a scalp, in about [-1,1] (0 at its edge): temples and forehead first, then the crown.
float baldness(vec3 rest, float noise) {
    if (receding < 0.02) return -1.0;
    vec3 d = normalize(rest - SKULL_CENTRE);
    float forehead = acos(clamp(dot(d, vec3(0.0, 0.53, 0.848)), -1.0, 1.0));
    float temples = 0.22 * smoothstep(0.05, 0.42, abs(d.x)) * smoothstep(0.75, 0.45, abs(d.x));  // an M
    float crown = acos(clamp(dot(d, vec3(0.0, 0.94, -0.34)), -1.0, 1.0));
    float front = 0.04 + 0.95 * receding - forehead + temples;
    float back = 1.5 * (receding - 0.45) - crown;
    float wreath = d.y + 0.25 * d.z - 0.36;  // the sides and the nape keep their hair
    return min(max(front, back), wreath * 2.2) + 0.10 * (noise - 0.5);
}

float hat_height(vec3 rest) { return rest.y - 0.28 * (rest.z - 1.0); }  // as in wear.py

// Opacity of hair in [0,1]: strands thin out towards the open edges of the mesh and the outer shells. extra = (across, along,
// distance to the edge, polar flag and gap to the skin); tone: light and dark of the strands, about 0.5; drift: slow noise;
// own: what sets a strand apart from its neighbours, about uniform in [0,1].
float hair_opacity(vec3 rest, vec4 extra, float shell, out float tone, out float drift, out float own) {
    bool polar = extra.w > 0.0;
    vec2 place = polar ? polar_place(rest) : vec2(extra.x / 8.4, -extra.y / 20.0);
    vec4 cells = texture(noise_texture, rest * (7.0 / 64.0) + 0.2);
    drift = cells.g;
    float phase = wave < 0.02 ? 0.0 : 6.2831853 * (place.y * (polar ? 6.0 : 20.0) / 1.2 + 1.5 * texture(noise_texture, rest * (2.0 / 64.0) + 0.6).b);
    place.x += wave * 0.006 * sin(phase);
    vec4 strand = texture(strand_texture, place);  // tone, thin hairs, locks, own
    tone = 0.5 + 1.5 * (strand.r - 0.5);
    float thin = clamp(0.5 + 1.6 * (strand.g - 0.5), 0.0, 1.0);
    float locks = strand.b - 0.5;
    own = clamp(0.5 + 1.5 * (strand.a - 0.5), 0.0, 1.0);
    tone += wave * 0.16 * sin(phase + 0.8) + 0.25 * locks;
    float curl = curly;
    float coil = curl > 0.0 ? fractal_noise(rest * mix(26.0, 36.0, fur_hair) + SEED * 64.0) - 0.5 : 0.0;
    tone = mix(tone, 0.5 + 2.0 * coil, curl);
    thin = mix(thin, clamp(0.5 + 1.9 * coil, 0.0, 1.0), curl);
    locks *= 1.0 - curl;
    if (polar) tone = mix(tone, 0.5, 0.7 * smoothstep(0.06, 0.0, place.y) * (1.0 - curl));  // strands would pinch together
    // near the skin the edge is a hairline: single fine hairs that fade; away from it, the tips of locks
    float hairline = smoothstep(0.22, 0.06, abs(extra.w) - 1.0);
    float irregular = 0.8 * locks * mix(1.0, 0.25, hairline) + mix(0.9, 0.35, curl) * (cells.r - 0.5) * mix(1.0, 0.6, hairline);
    float inside = extra.z / frayed + irregular * 0.8;
    inside = min(inside, (rest.y - trim_height) / 0.30 + 0.7 * irregular);
    // a fringe is cut above the eyes, lower towards the temples
    float ax = abs(rest.x);
    float fringe_line = fringe_height - 0.9 * smoothstep(0.40, 0.85, ax) * smoothstep(0.40, 0.85, ax);
    float before_face = smoothstep(0.55, 0.90, rest.z + 0.25 * (rest.y - 7.4)) * (1.0 - smoothstep(0.80, 1.0, ax));
    inside = min(inside, (rest.y - fringe_line) / 0.16 + 0.9 * irregular + 6.0 * (1.0 - before_face));
    // short hair is cut around the ear, so that the ear shows as a whole
    vec2 from_ear = (rest.yz - vec2(7.10, 0.44)) / vec2(0.36, 0.33);
    inside = min(inside, (length(from_ear) - 1.0) * 3.0 + 0.5 * irregular + 8.0 * (1.0 - ears_free * smoothstep(0.5, 0.6, ax)));
    inside = min(inside, -6.0 * baldness(rest, cells.r) + 0.4 * (thin - 0.5));
    float under_hat = min(hat_height(rest) - hat_low, hat_high - hat_height(rest));
    inside = min(inside, 2.0 - 40.0 * under_hat + 60.0 * smoothstep(0.35, 0.5, abs(extra.w) - 1.0));
    float solid = clamp(inside * mix(1.0, 0.85, hairline), 0.0, 1.0);
    float strands = 0.3 * tone + 0.7 * thin;
    // tips end strand by strand, and softly where hair grows out of the skin
    float opacity = solid + 1.6 * min(inside, 0.0) + (strands - 0.5) * mix(1.2, 0.6, hairline) * (1.25 - solid);
    if (shells > 1) opacity -= shell * 0.72 - (strands - 0.5) * shell * 0.9;
    return smoothstep(mix(0.04, 0.12, hairline), mix(0.82, 1.02, hairline), opacity);
}

// Where a scalp grows hair by itself, in [0,1]; also in hairstyles.scalp_distance.
float scalp_hair(vec3 rest, float noise) {
    float line = rest.y + 1.2 * max(0.0, 1.05 - rest.z) - 7.95;
    float sideburn = min(0.14 - abs(rest.z - 0.70), min(rest.y - 7.02, 8.0 - rest.y));
    float grown = min(max(line, sideburn), rest.y - 6.76 + 0.2 * max(0.0, rest.z)) + 0.10 * (noise - 0.5);
    vec2 from_ear = (rest.yz - vec2(7.09, 0.49)) / vec2(0.29, 0.19);
    grown = min(grown, 0.3 * (length(from_ear) - 1.0) + 2.0 * step(abs(rest.x), 0.62));
    return smoothstep(0.0, 0.14, grown);
}

// Colour of hair: strand by strand it turns grey, at the temples first.
vec3 hair_colour(vec3 rest, float own) {
    float temples = 0.18 * smoothstep(0.45, 0.8, abs(rest.x)) * smoothstep(7.9, 7.3, rest.y);
    float share = grey + temples * smoothstep(0.05, 0.3, grey);
    return mix(hair, grey_hair, mix(min(share, 1.0), smoothstep(-0.35, 0.35, share * 1.7 - 0.35 - own), 0.55));
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
    float rough = 0.5 * (0.6 * cells.r + 0.4 * cells.g - 0.5);
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
    return clamp(region, 0.0, 1.0);
}

// Light and dark of whiskers, about 0.5: about a pixel thin at 256 px, several long, leaning back on the cheek.
float beard_strands(vec3 rest) {
    float down = rest.y + 0.5 * max(0.0, 1.3 - rest.z);
    vec3 cells = vec3(rest.x * 52.0 + 3.0 * sin(down * 17.0), down * 13.0, rest.z * 40.0);
    vec3 place = cells / 64.0 + SEED;
    float clump = texture(noise_texture, rest * (15.0 / 64.0) + 0.4).b;
    return 0.50 * texture(noise_texture, place).r + 0.30 * texture(noise_texture, place * 1.9 + 0.4).g + 0.20 * clump;
}

// Opacity of a beard's shell: whiskers get fewer with height, and only the thick of the beard reaches the outer shells.
float beard_opacity(vec3 rest, float shell, float hairs, out float region) {
    region = beard_region(rest) * smoothstep(0.0, 0.9, beard);
    float spread = clamp(0.5 + 2.6 * (hairs - 0.5), 0.0, 1.0);
    float keep = region * 1.2 - 0.10 - shell * (1.25 - 0.45 * region) + (spread - 0.5) * (0.55 + 0.5 * shell);
    return smoothstep(0.0, 0.95, keep) * smoothstep(0.05, 0.75, region);
}
