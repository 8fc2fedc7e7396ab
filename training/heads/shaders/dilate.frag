// Grow the baked islands by a few texels, so that filtering does not pull in the background.
uniform sampler2D albedo, gloss, bumps;
layout(location = 0) out vec4 out_albedo;
layout(location = 1) out vec4 out_gloss;
layout(location = 2) out vec4 out_bumps;

void main() {
    ivec2 here = ivec2(gl_FragCoord.xy);
    ivec2 best = here;
    if (texelFetch(albedo, here, 0).a < 0.5) {
        for (int ring = 1; ring < 4 && best == here; ring++)
            for (int step_ = 0; step_ < 8; step_++) {
                float angle = float(step_) * 0.785398;
                ivec2 there = clamp(here + ivec2(round(vec2(cos(angle), sin(angle)) * float(ring))), ivec2(0), textureSize(albedo, 0) - 1);
                if (texelFetch(albedo, there, 0).a > 0.5) { best = there; break; }
            }
    }
    out_albedo = texelFetch(albedo, best, 0);
    out_gloss = texelFetch(gloss, best, 0);
    out_bumps = texelFetch(bumps, best, 0);
}
