// Supersamples to pixels: mean of the premultiplied colour, depth of the nearest well covered sample.
uniform sampler2D colour_samples;
uniform sampler2D depth_samples;
uniform int supersample;
layout(location = 0) out vec4 out_colour;
layout(location = 1) out vec4 out_depth;

void main() {
    ivec2 origin = ivec2(gl_FragCoord.xy) * supersample;
    vec4 sum = vec4(0.0);
    float solid = 1e9, thin = 1e9;
    for (int row = 0; row < supersample; row++)
        for (int column = 0; column < supersample; column++) {
            vec4 colour = texelFetch(colour_samples, origin + ivec2(column, row), 0);
            float weighted = texelFetch(depth_samples, origin + ivec2(column, row), 0).r;
            sum += colour;
            if (colour.a > 0.0) thin = min(thin, weighted / colour.a);
            if (colour.a > 0.3) solid = min(solid, weighted / colour.a);
        }
    float alpha = sum.a / float(supersample * supersample);
    out_colour = vec4(sum.a > 0.0 ? sum.rgb / sum.a : vec3(0.0), alpha);
    out_depth = vec4(solid < 1e8 ? solid : (thin < 1e8 ? thin : 0.0), 0.0, 0.0, 1.0);
}
