// Skin, lips, brows, painted hair and cloth into a texture. All masks are functions of the rest position.
in vec3 v_position;
in vec3 v_normal;
in vec3 v_rest;
in vec4 v_extra;  // distance to the hair, inside the mouth, under the cloth, ·
uniform vec3 skin, lips, brows, whiskers, cloth;
uniform vec4 brow_shape;  // height, thickness, slope, density
uniform float lash_length, stubble, blush, mottle, wrinkles, freckles, eye_makeup, eye_makeup_hue, fine_seed, bald, bald_shadow;
uniform sampler2D decal;
uniform vec4 decal_place;  // middle (u,v), width, height in the frontal picture; width 0: none
layout(location = 0) out vec4 out_albedo;
layout(location = 1) out vec4 out_gloss;
layout(location = 2) out vec4 out_bumps;

// Depth of wrinkles and pores (decimetres, up to a factor); its gradient bends the normals.
float relief(vec3 r) {
    float ax = abs(r.x);
    float front = smoothstep(0.2, 0.9, r.z);
    float wobble = value_noise(r * 6.0 + 20.0) - 0.5;
    float height = (0.0022 + 0.002 * wrinkles) * (value_noise(r * 75.0 + fine_seed * 64.0) - 0.5) + 0.0035 * (value_noise(r * 30.0 + 5.0) - 0.5);
    float rows = sin((r.y + 0.05 * wobble + 0.04 * ax * ax) * 58.0);
    float forehead = gauss(vec2(ax, r.y - 7.86), vec2(0.50, 0.17)) * front;
    height -= wrinkles * 0.022 * forehead * smoothstep(0.35, 1.0, rows + 0.8 * wobble);
    vec2 corner = vec2(ax - 0.47, r.y - 7.27);
    float fan = sin(atan(corner.y, corner.x + 0.06) * 11.0 + 4.0 * wobble);
    height -= wrinkles * 0.011 * gauss(corner - vec2(0.13, 0.0), vec2(0.13, 0.16)) * smoothstep(0.2, 1.0, fan) * front;
    height -= wrinkles * 0.010 * gauss(vec2(ax - 0.30, r.y - 7.12), vec2(0.16, 0.05)) * smoothstep(0.2, 1.0, sin((r.y + 0.10 * (ax - 0.3) + 0.03 * wobble) * 110.0)) * front;
    float along = clamp((6.97 - r.y) / 0.45, 0.0, 1.0);
    float fold = ax - mix(0.17, 0.36, along) - 0.03 * wobble;
    height -= (0.006 + wrinkles * 0.034) * exp(-fold * fold / 0.0012) * smoothstep(7.0, 6.9, r.y) * smoothstep(6.45, 6.6, r.y) * front;
    float neck_rows = sin((r.y + 0.06 * wobble) * 30.0);
    height -= wrinkles * 0.012 * smoothstep(6.1, 5.9, r.y) * smoothstep(0.4, 1.0, neck_rows) * smoothstep(0.0, 0.5, r.z);
    height += 0.008 * lip_mask(r) * (value_noise(vec3(r.x * 60.0, r.y * 6.0, 2.0) + 64.0 * SEED) - 0.5);
    return height;
}

vec3 relief_gradient(vec3 r, float height) {
    const float step_ = 0.008;
    return vec3(relief(r + vec3(step_, 0.0, 0.0)), relief(r + vec3(0.0, step_, 0.0)), relief(r + vec3(0.0, 0.0, step_)) ) / step_ - height / step_;
}

void main() {
    vec3 r = v_rest;
    float ax = abs(r.x);
    float front = smoothstep(0.2, 0.9, r.z);
    vec3 fine_shift = vec3(fine_seed * 64.0, 0.0, 0.0);
    float broad = fractal_noise(r * 3.0 + SEED * 64.0), middle = fractal_noise(r * 9.0 + SEED.yzx * 64.0);
    float small = value_noise(r * 28.0 + SEED.zxy * 64.0), fine = value_noise(r * 70.0 + fine_shift);

    // skin: tone drifts from yellow to red at several scales, as blood and melanin do
    vec3 albedo = skin;
    albedo *= 1.0 + (broad - 0.5) * vec3(0.26, 0.32, 0.36) * (0.5 + mottle);
    albedo *= 1.0 + (middle - 0.5) * (0.25 + mottle) * vec3(0.18, 0.32, 0.34);
    albedo *= 1.0 + (small - 0.5) * (0.2 + mottle) * vec3(0.13, 0.22, 0.22);
    albedo *= 1.0 + (fine - 0.5) * 0.13;
    float cheek = gauss(vec2(ax - 0.44, r.y - 6.93), vec2(0.22, 0.20)) * front;
    float nose = gauss(vec2(r.x, r.y - 6.93), vec2(0.14, 0.12)) * smoothstep(1.3, 1.6, r.z);
    float ear = smoothstep(0.72, 0.85, ax) * smoothstep(6.6, 6.8, r.y);
    float chin = gauss(vec2(r.x, r.y - 6.3), vec2(0.18, 0.12)) * front;
    float forehead = gauss(vec2(r.x, r.y - 7.75), vec2(0.4, 0.25)) * front;
    float red = clamp(0.55 * cheek + 0.6 * nose + 0.55 * ear + 0.25 * chin, 0.0, 1.0) * (0.4 + 1.2 * middle) * blush;
    albedo *= mix(vec3(1.0), vec3(1.02, 0.80, 0.77), red);
    vec2 from_eye = vec2(ax - 0.31, r.y - 7.285);
    float socket = gauss(from_eye, vec2(0.20, 0.11)) * front;
    float bag = gauss(vec2(ax - 0.27, r.y - 7.16), vec2(0.14, 0.06)) * front;
    albedo *= mix(vec3(1.0), vec3(0.74, 0.62, 0.60), clamp(socket * 0.55 + bag * (0.22 + 0.4 * wrinkles), 0.0, 1.0));
    vec3 shadow_tint = mix(vec3(0.55, 0.42, 0.42), vec3(0.35, 0.30, 0.40), eye_makeup_hue);
    albedo = mix(albedo, albedo * shadow_tint, eye_makeup * 0.75 * gauss(from_eye, vec2(0.17, 0.07)) * front * smoothstep(7.24, 7.32, r.y));
    albedo *= 1.0 + 0.08 * forehead;
    // the lids: a dark rim where the lashes root, a fold above the upper one
    float across_lid = clamp((ax - 0.312) / 0.135, -1.3, 1.3);
    float upper_lid = r.y - (7.278 + 0.052 * (1.0 - across_lid * across_lid)), lower_lid = r.y - (7.266 - 0.024 * (1.0 - across_lid * across_lid));
    float at_eye = smoothstep(1.25, 1.0, abs(across_lid)) * smoothstep(1.15, 1.3, r.z);
    float fold_above = upper_lid - 0.052 - 0.012 * across_lid;
    albedo *= mix(vec3(1.0), vec3(0.62, 0.50, 0.47), 0.75 * at_eye * exp(-fold_above * fold_above / 0.00022));
    float rim = exp(-upper_lid * upper_lid / 0.00018) + (0.35 + 0.3 * eye_makeup) * exp(-lower_lid * lower_lid / 0.00010);
    albedo = mix(albedo, albedo * vec3(0.22, 0.16, 0.15), clamp(rim * (0.55 + 0.45 * lash_length), 0.0, 0.95) * at_eye);
    float spots = smoothstep(0.55, 0.66, fractal_noise(r * 40.0 + fine_shift.yxx));
    albedo *= mix(vec3(1.0), vec3(0.72, 0.55, 0.46), freckles * spots * clamp(cheek + nose + 0.6 * socket + 0.12, 0.0, 1.0));
    float age_spots = smoothstep(0.60, 0.68, fractal_noise(r * 7.0 + 31.0));
    albedo *= mix(vec3(1.0), vec3(0.80, 0.70, 0.62), age_spots * wrinkles * 0.35);

    float height = relief(r);
    float creases = clamp(-(height + 0.004) * 60.0, 0.0, 1.0);
    albedo *= mix(vec3(1.0), vec3(0.84, 0.76, 0.74), creases);

    float nostril = gauss(vec2(ax - 0.078, r.y - 6.838), vec2(0.034, 0.022)) * smoothstep(1.35, 1.45, r.z);
    albedo *= mix(vec3(1.0), vec3(0.25, 0.15, 0.13), clamp(nostril * 1.1, 0.0, 1.0));
    float open = 1.0 - 0.5 * nostril;

    float lip = lip_mask(r) * (1.0 - v_extra.y);
    float t = clamp(ax / 0.245, 0.0, 1.0);
    float plump = smoothstep(6.52, 6.57, r.y) * smoothstep(6.61, 6.58, r.y) * smoothstep(0.9, 0.2, t);  // the lower lip catches light
    vec3 lip_colour = lips * (1.0 + (value_noise(vec3(r.x * 45.0, r.y * 6.0, 2.0) + 64.0 * SEED) - 0.5) * 0.35) * (0.93 + 0.16 * plump);
    albedo = mix(albedo, lip_colour, lip * 0.88);
    float seam = gauss(vec2(0.0, r.y - 6.611), vec2(1.0, 0.016)) * smoothstep(0.26, 0.22, ax) * smoothstep(1.0, 1.2, r.z);

    // stubble and the skin beneath a beard
    float region = beard_region(r);
    float hairs = beard_strands(r);
    float grain = smoothstep(0.35, 0.65, hairs);
    vec3 shaven = mix(albedo * vec3(0.62, 0.64, 0.66), whiskers, 0.25);
    albedo = mix(albedo, shaven, region * stubble * (0.55 + 0.45 * grain));
    albedo = mix(albedo, whiskers * (0.45 + 0.9 * hairs), region * smoothstep(0.0, 0.8, beard) * (0.72 + 0.26 * grain));

    // eyebrows: hairs that lean outwards
    float way = (ax - 0.095) / 0.485;
    float line = 7.392 + brow_shape.x + 0.050 * sin(clamp(way, 0.0, 1.0) * 2.5) - 0.055 * way * way * way + brow_shape.z * way;
    float off = (r.y - line) / (brow_shape.y * (1.45 - 0.85 * max(way, 0.0)));
    float lean = (r.x < 0.0 ? 1.0 : -1.0) * mix(1.4, 0.5, smoothstep(0.0, 0.5, way));
    float brow_hairs = value_noise(vec3(r.x * 42.0 + lean * r.y * 42.0, r.y * 12.0, 2.2) + 64.0 * SEED);
    float brow = smoothstep(1.45, 0.0, abs(off) + (brow_hairs - 0.5) * 1.0) * smoothstep(-0.10, 0.20, way) * smoothstep(1.10, 0.75, way) * front;
    albedo = mix(albedo, brows * (0.7 + 0.6 * brow_hairs), clamp(brow * brow_shape.w * 1.2, 0.0, 0.92));

    // hair painted on the scalp: solid under the hair, single baby hairs at the hairline
    float scalp = smoothstep(6.75, 7.0, r.y + max(0.0, 0.6 - r.z) * 0.5) * (1.0 - smoothstep(0.95, 1.25, r.z) * smoothstep(7.75, 7.55, r.y));
    scalp *= 1.0 - smoothstep(0.80, 0.84, ax) * smoothstep(7.6, 7.4, r.y);
    vec4 strand = texture(strand_texture, polar_place(r));
    float curls = clamp(0.5 + 1.4 * (value_noise(r * 34.0) - 0.5), 0.0, 1.0);
    float strands = mix(strand.r, curls, curly), baby = mix(strand.g, 0.5 + 0.3 * (curls - 0.5), curly);
    float clump = fractal_noise(r * 5.0 + 40.0) - 0.5;
    float near = v_extra.x + clump * 0.16 + (strands - 0.5) * mix(0.12, 0.04, curly);
    float beside_face = smoothstep(0.45, 0.65, r.z) * smoothstep(7.55, 7.40, r.y);  // sideburns end without a cloud around
    near += 0.10 * beside_face;
    near -= 0.12 * curly * smoothstep(7.45, 7.7, r.y);  // curls stand in a wall at the hairline, whose foot is dark
    float solid = smoothstep(0.15, 0.02, near);
    float wisps = smoothstep(0.22, 0.02, near + 0.05) * smoothstep(0.48, 0.70, baby) * 0.6;
    // under hair that stands off the head, too far from it to be found by distance, the scalp is overgrown too
    float overgrown = smoothstep(7.2, 7.5, r.y + max(0.0, 0.9 - r.z) * 0.55 - 0.12) * smoothstep(0.85, 0.79, ax);
    float hairline = r.y + 1.2 * max(0.0, 1.05 - r.z) + 0.15 * clump;
    float rooted = overgrown * smoothstep(7.90, 8.10, hairline + 0.20 * (baby - 0.5));
    rooted = max(rooted, scalp_hair(r, baby) * smoothstep(0.5, 0.35, r.z));  // behind the ears and down to the nape
    float bare = smoothstep(-0.10, 0.10, baldness(r, strand.b));
    vec3 mixed_hair = mix(hair, grey_hair, grey);
    float painted = max(scalp * max(solid, wisps), rooted) * (1.0 - bald) * (1.0 - 0.93 * bare);
    albedo = mix(albedo, mixed_hair * 0.45 * (0.45 + 1.1 * strands), painted * 0.94);
    float shaved = scalp_hair(r, 0.5) * (1.0 - 0.85 * bare);
    albedo = mix(albedo, mix(albedo * vec3(0.70, 0.72, 0.74), mixed_hair, 0.6), shaved * bald_shadow * bald * (0.75 + 0.4 * fine));

    albedo = mix(albedo, vec3(0.50, 0.19, 0.17), v_extra.y);

    // a decal, thrown from the frontal EG3D camera (radius 2.7, focal 4.2647); it fades where the skin turns away
    if (decal_place.z > 0.0) {
        vec2 seen = vec2(v_position.x, -v_position.y) * 4.2647 / (2.7 - v_position.z) + 0.5;
        vec2 q = (seen - decal_place.xy) / decal_place.zw + 0.5;
        vec4 paint = texture(decal, q);
        float inside = step(0.0, q.x) * step(q.x, 1.0) * step(0.0, q.y) * step(q.y, 1.0);
        float towards = smoothstep(0.05, 0.25, normalize(v_normal).z) * smoothstep(0.4, 0.6, r.z);
        albedo = mix(albedo, pow(paint.rgb, vec3(2.2)), paint.a * inside * towards * (1.0 - v_extra.y));
    }

    float under = smoothstep(0.35, 0.5, v_extra.z);
    float weave = value_noise(vec3(r.x * 40.0, r.y * 8.0, r.z * 40.0)) * 0.5 + 0.5;
    vec3 woven = cloth * (0.75 + 0.4 * fractal_noise(r * 6.0)) * (0.85 + 0.3 * weave);
    float gloss = mix(0.34, 0.55, lip) * (1.0 - painted * 0.7) * (1.0 - v_extra.y * 0.6) * (0.6 + 0.8 * small);
    gloss *= (1.0 + 0.6 * nose + 0.4 * forehead) * (1.0 - under * 0.95) * (1.0 - 0.6 * region * max(beard, stubble));
    open *= mix(1.0, 0.45, seam * (1.0 - under));
    vec3 slope = relief_gradient(r, height) * (1.0 - under) * (1.0 - painted);

    out_albedo = vec4(sqrt(clamp(mix(albedo, woven, under), 0.0, 1.0)), 1.0);
    out_gloss = vec4(clamp(gloss * 0.5, 0.0, 1.0), mix(22.0, 40.0, lip) / 64.0, 1.0 - under, clamp(open, 0.0, 1.0));
    out_bumps = vec4(clamp(slope + 0.5, 0.0, 1.0), v_extra.y);
}
