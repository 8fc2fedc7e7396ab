// Final colour (premultiplied, sRGB) and z-depth times opacity.
in vec3 v_position;
in vec3 v_normal;
in vec3 v_rest;
in vec4 v_extra;
in vec3 v_tangent;
in float v_occlusion;
in vec4 v_light_place;
in float v_shell;
in float v_depth;

uniform sampler2D eye_texture;
uniform sampler2DShadow shadow_map;
uniform sampler2D baked_albedo;
uniform sampler2D baked_gloss;
uniform sampler2D baked_bumps;
uniform int part;
uniform int fringe;  // 0: the opaque core of hair, 1: its see-through rest, blended over the core
uniform float specular;  // 0 leaves out everything that depends on the view
uniform vec3 camera_position;
uniform vec3 cap_colour, frame;
uniform vec3 skin, brows, whiskers, iris;
uniform float lash_length;
uniform vec3 key_direction, key_colour, second_direction, second_colour, sky, ground, fill_x, fill_z;
uniform float shadow_reach, exposure, shine, hair_gloss;

layout(location = 0) out vec4 out_colour;
layout(location = 1) out vec4 out_depth;

vec3 ambient(vec3 n) {
    return max(vec3(0.03), mix(ground, sky, n.y * 0.5 + 0.5) + fill_x * n.x + fill_z * n.z);
}

// Share of the key light that arrives, in [0,1]: a disc of taps in a sunflower's order.
float key_visibility() {
    vec3 place = v_light_place.xyz / v_light_place.w * 0.5 + 0.5;
    float reach = shadow_reach / (2.0 * SHADOW_REACH);
    float bias = 0.002 + 0.35 * reach;
    float sum = 0.0;
    for (int i = 0; i < 11; i++) {
        float angle = float(i) * 2.3999632;
        vec2 tap = sqrt((float(i) + 0.5) / 11.0) * reach * vec2(cos(angle), sin(angle));
        sum += texture(shadow_map, vec3(place.xy + tap, place.z - bias));
    }
    return sum / 11.0;
}

vec3 tone_mapped(vec3 c) {
    c *= 0.80 * exposure;
    c = c * (1.0 + c * 0.12) / (1.0 + c * 0.55);
    return pow(clamp(c, 0.0, 1.0), vec3(1.0 / 2.2));
}

void main() {
    vec3 n = normalize(v_normal);
    vec3 to_camera = normalize(camera_position - v_position);
    vec3 view = specular > 0.5 ? to_camera : n;
    // Without view-dependent light, highlights are painted on where a camera in front would see them.
    vec3 to_front = normalize(vec3(0.0, 0.0, 2.7) - v_position);
    vec3 gloss_view = specular > 0.5 ? to_camera : to_front;
    vec3 albedo = vec3(0.5);
    vec3 sheen = vec3(0.0);
    float gloss = 0.0, sharpness = 20.0, scatter = 0.0, open = v_occlusion, opacity = 1.0;

    if (part == PART_SKIN) {
        vec4 colour = texture(baked_albedo, v_tangent.xy);
        vec4 surface = texture(baked_gloss, v_tangent.xy);
        vec4 bumps = texture(baked_bumps, v_tangent.xy);
        vec3 slope = bumps.rgb - 0.5;
        albedo = colour.rgb * colour.rgb;
        gloss = surface.r * 2.0;
        sharpness = surface.g * 64.0;
        scatter = surface.b;
        open = max(open * surface.a, 0.25 * bumps.a);  // light that skin lets through keeps the inside of the mouth from black
        n = normalize(n - (slope - n * dot(slope, n)));
    } else if (part == PART_EYES) {
        const vec2 LEFT = vec2(0.706, 0.702), RIGHT = vec2(0.29, 0.29);
        vec2 uv = v_rest.xy;
        vec2 centre = distance(uv, LEFT) < distance(uv, RIGHT) ? LEFT : RIGHT;
        float radius = distance(uv, centre) / 0.115;
        vec3 fibres = pow(texture(eye_texture, uv).rgb, vec3(2.2));
        float brightness = max(fibres.r, max(fibres.g, fibres.b));
        vec3 white = mix(vec3(0.74, 0.72, 0.69), fibres, 0.35);
        vec3 colour = iris * (0.30 + brightness * 3.2) * 0.80 * mix(0.5, 1.1, smoothstep(0.95, 0.5, radius));
        colour *= smoothstep(0.28, 0.36, radius);
        albedo = mix(colour, white, smoothstep(0.93, 1.03, radius));
        albedo *= mix(1.0, 0.45, smoothstep(0.78, 0.93, radius) * smoothstep(1.06, 0.95, radius));
        gloss = 0.6;
        sharpness = 160.0;
        open = open * 0.85 + 0.12;
    } else if (part == PART_LASHES) {
        float hairs = value_noise(vec3(v_extra.y * 110.0, v_extra.x * 3.0 * (v_extra.y - 0.3) * 9.0, 1.0) + 64.0 * SEED);
        hairs = clamp(0.5 + (hairs - 0.5) * 2.0, 0.0, 1.0);
        float reach = v_extra.z > 0.5 ? 0.12 + 0.17 * lash_length : 0.04 + 0.08 * lash_length;
        if (v_extra.x > reach * (0.65 + 0.45 * hairs)) discard;
        albedo = mix(brows * 0.3, skin * 0.3, 0.5);
        open = 0.8;
    } else if (part == PART_TEETH) {
        albedo = mix(vec3(0.70, 0.66, 0.58), vec3(0.46, 0.15, 0.14), step(0.5, v_extra.x));
        gloss = 0.5;
        sharpness = 50.0;
        open = max(open * 0.9, 0.2);
    } else if (part == PART_CAP) {
        float height = hat_height(v_rest);
        if (height < hat_low || height > hat_high) discard;
        float ribs = sin(atan(v_rest.x, v_rest.z - 0.3) * 70.0) * 0.5 + 0.5;
        albedo = cap_colour * (0.72 + 0.30 * ribs + 0.25 * (value_noise(v_rest * 40.0) - 0.5));
    } else if (part == PART_GLASSES) {
        albedo = v_extra.x > 0.5 ? vec3(0.012, 0.011, 0.012) : frame;
        gloss = 0.8;
        sharpness = 60.0;
        open = max(open, 0.4);
    } else if (part == PART_BEARD) {
        float hairs = beard_strands(v_rest), region;
        opacity = beard_opacity(v_rest, v_shell, hairs, region);
        if (fringe == 0 ? opacity < 0.8 : (opacity >= 0.8 || opacity < 0.03)) discard;
        albedo = whiskers * (0.35 + 1.3 * hairs) * mix(0.75, 1.25, v_shell) * mix(1.35, 1.0, region);
        open *= mix(0.6, 1.0, v_shell);
        scatter = 0.0;
    } else {
        float tone, drift, own;
        opacity = hair_opacity(v_rest, v_extra, v_shell, tone, drift, own);
        if (fringe == 0 ? opacity < 0.8 : (opacity >= 0.8 || opacity < 0.03)) discard;
        if (dot(n, to_camera) < 0.0 && !gl_FrontFacing) n = -n;
        albedo = hair_colour(v_rest, own) * (0.42 + 1.5 * tone * tone) * mix(0.5, 1.1, shells > 1 ? v_shell : 0.8);
        albedo *= 0.85 + 0.3 * drift;
        // two highlights of Kajiya and Kay's model, shifted along the strand (Marschner et al. 2003)
        vec3 strand = normalize(v_tangent + (tone - 0.5) * 1.3 * n);
        strand = normalize(strand - n * dot(strand, n));
        vec3 halfway = normalize(key_direction + view);
        float first = dot(strand, halfway), second = dot(normalize(strand + n * 0.15), halfway);
        float sharp = pow(sqrt(max(0.0, 1.0 - first * first)), 60.0), wide = pow(sqrt(max(0.0, 1.0 - second * second)), 16.0);
        sheen = (vec3(0.055) * sharp * hair_gloss + albedo * 0.9 * wide) * (1.0 - curly * 0.8) * (0.15 + 1.7 * tone * tone);
    }
    if (fringe == 0) opacity = 1.0;

    float facing = dot(n, key_direction);
    float lit = facing > -0.45 ? key_visibility() : 0.0;  // no material takes light from further behind
    vec3 direct = vec3(max(facing, 0.0)) * lit;
    vec3 open_colour = vec3(open);
    if (part == PART_SKIN) {  // light bleeds past the shadow's edge, red furthest
        vec3 wrap = vec3(0.30, 0.18, 0.13) * scatter;
        direct = clamp((vec3(facing) + wrap) / (1.0 + wrap), 0.0, 1.0) * mix(vec3(lit), vec3(sqrt(lit)), wrap);
        open_colour = pow(vec3(clamp(open, 0.02, 1.0)), mix(vec3(1.0), vec3(1.05, 1.25, 1.35), scatter));
    } else if (part == PART_HAIR || part == PART_BEARD) {
        direct = vec3(clamp(facing * 0.7 + 0.3, 0.0, 1.0)) * lit;
    }
    float second_facing = dot(n, second_direction);
    vec3 second = second_colour * max(second_facing, 0.0) * smoothstep(0.15, 0.75, open);
    vec3 colour = albedo * (key_colour * direct + second + ambient(n) * open_colour);
    colour += sheen * (key_colour * lit * 1.1 + ambient(n) * 0.25 * open);
    if (gloss > 0.0) {
        float seen = dot(n, gloss_view);
        float polish = gloss * shine * (sharpness + 8.0) / 25.0 * 0.045 * smoothstep(0.0, 0.25, seen);
        vec3 halfway = normalize(key_direction + gloss_view), other = normalize(second_direction + gloss_view);
        colour += key_colour * lit * polish * pow(max(dot(n, halfway), 0.0), sharpness) * smoothstep(0.0, 0.1, facing);
        colour += second_colour * open * polish * pow(max(dot(n, other), 0.0), sharpness) * smoothstep(0.0, 0.1, second_facing);
        float fresnel = 0.04 + 0.576 * pow(1.0 - max(seen, 0.0), 5.0) * specular;
        colour += ambient(reflect(-gloss_view, n)) * fresnel * gloss * shine * open * 0.6;
    }
    if (part == PART_EYES) {  // a catchlight; without specular it is painted where a frontal viewer would see it
        vec3 halfway = normalize(normalize(vec3(0.25, 0.35, 1.0)) + (specular > 0.5 ? view : vec3(0.0, 0.0, 1.0)));
        colour += vec3(0.7) * pow(max(dot(n, halfway), 0.0), 350.0) * open;
    }
    out_colour = vec4(tone_mapped(colour) * opacity, opacity);
    out_depth = vec4(v_depth * opacity, 0.0, 0.0, opacity);
}
