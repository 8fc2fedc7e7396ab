// Ambient occlusion of a vertex: the share of sky directions in whose depth map it is the nearest surface.
in vec3 position;
in vec3 normal;
uniform sampler2D depth_maps;  // tiles, one a direction
uniform mat4 tile_from_world[DIRECTIONS];
uniform float two_sided;  // hair is lit from both sides
out float openness;

void main() {
    float sum = 0.0, weights = 1e-6;
    for (int i = 0; i < DIRECTIONS; i++) {
        vec3 place = (tile_from_world[i] * vec4(position + normal * 0.012, 1.0)).xyz * 0.5 + 0.5;
        vec3 direction = -vec3(tile_from_world[i][0][2], tile_from_world[i][1][2], tile_from_world[i][2][2]);
        float facing = dot(normal, normalize(direction));
        float weight = mix(max(facing, 0.0), abs(facing) * 0.5 + 0.5, two_sided);
        ivec2 tile = ivec2(i % TILE_COLUMNS, i / TILE_COLUMNS) * TILE_SIZE;
        ivec2 texel = clamp(ivec2(place.xy * float(TILE_SIZE)), ivec2(0), ivec2(TILE_SIZE - 1));
        float nearest = texelFetch(depth_maps, tile + texel, 0).r;
        sum += weight * clamp(1.0 - (place.z - 0.006 - nearest) / 0.012, 0.0, 1.0);
        weights += weight;
    }
    openness = sum / weights;
}
