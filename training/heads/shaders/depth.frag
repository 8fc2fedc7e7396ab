// Window depth for shadow and occlusion maps; the depth buffer is what counts.
in vec3 v_rest;
in vec4 v_extra;
in float v_shell;
uniform int part;
out vec4 out_colour;

void main() {
    float tone, drift, own, region;
    if (part == PART_CAP && (hat_height(v_rest) < hat_low || hat_height(v_rest) > hat_high)) discard;
    if (part == PART_HAIR && hair_opacity(v_rest, v_extra, v_shell, tone, drift, own) < 0.5) discard;
    if (part == PART_BEARD && beard_opacity(v_rest, v_shell, beard_strands(v_rest), region) < 0.5) discard;
    out_colour = vec4(gl_FragCoord.z);
}
