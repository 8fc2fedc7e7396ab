// Every mesh of the head; instances are shells pushed out along the normals (fur).
in vec3 position;
in vec3 normal;
in vec3 rest;
in vec4 extra;
in vec3 tangent;
in float occlusion;

uniform mat4 clip_from_world;
uniform mat4 camera_from_world;
uniform mat4 light_from_world;
uniform float fur;
uniform int shells;
uniform float clip_box;
uniform float shadow_reach;  // world units
uniform int part;
uniform int outermost_first;  // nearer shells first let the depth test spare the rest; blending wants them last

out vec3 v_position;
out vec3 v_normal;
out vec3 v_rest;
out vec4 v_extra;
out vec3 v_tangent;
out float v_occlusion;
out vec4 v_light_place;
out float v_shell;
out float v_depth;

void main() {
    v_shell = shells > 1 ? float(outermost_first == 1 ? shells - 1 - gl_InstanceID : gl_InstanceID) / float(shells - 1) : 0.0;
    vec3 grow = normal;
    if (part == PART_BEARD) {
        grow = normalize(normal + vec3(0.0, -0.75, 0.15) * v_shell);  // a beard hangs: the longer the hair, the lower it points
    }
    v_position = position + grow * fur * v_shell;
    v_normal = normal;
    v_rest = rest;
    v_extra = extra;
    v_tangent = tangent;
    v_occlusion = occlusion;
    // off the surface by about the reach of the soft shadow, so that no surface shades itself
    v_light_place = light_from_world * vec4(v_position + normal * (0.004 + 0.6 * shadow_reach), 1.0);
    v_depth = (camera_from_world * vec4(v_position, 1.0)).z;
    gl_Position = clip_from_world * vec4(v_position, 1.0);
    gl_ClipDistance[0] = clip_box - v_position.x;
    gl_ClipDistance[1] = clip_box + v_position.x;
    gl_ClipDistance[2] = clip_box - v_position.y;
    gl_ClipDistance[3] = clip_box + v_position.y;
    gl_ClipDistance[4] = clip_box - v_position.z;
    gl_ClipDistance[5] = clip_box + v_position.z;
}
